from histotransfer.config import ladder_config
from histotransfer.experiments import leakage
from histotransfer.experiments.leakage import RUNS, official_overlaps
from histotransfer.records import read_run
from histotransfer.report.tables import gap

CONFIG = ladder_config("phantom", {"size": 32, "folds": 3, "normaliser": "none"})


def test_four_runs_are_recorded_and_can_be_compared(small_network, phantom_root, tmp_path):
    leakage.run(CONFIG, phantom_root, tmp_path / "leakage", report=str)
    runs = {name: read_run(tmp_path / "leakage" / name) for name in RUNS}
    assert len(gap(runs["breakhis-by-patient"], runs["breakhis-by-image"])) > 0
    audit = runs["lc25000-by-patient"].record["split"]["audit"]
    assert all(fold["groups"] == 0 for fold in audit.values())
    assert not (tmp_path / "leakage" / "official_folds.csv").exists()


def test_official_overlaps_count_slides_and_base_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(leakage, "OFFICIAL_FOLDS", 1)
    names = ["SOB_B_A-14-1AB-40-001.png", "SOB_B_A-14-1CD-40-001.png", "SOB_M_DC-14-2-40-001.png"]
    lines = [f"{name}|40|1|{part}" for name, part in zip(names, ("train", "test", "test"), strict=True)]
    (tmp_path / "dsfold1.txt").write_text("\n".join(lines) + "\n")
    row = official_overlaps(tmp_path).loc[1]
    assert (row["test images"], row["test slide ids"], row["in training too"]) == (2, 2, 0)
    assert (row["test base numbers"], row["of these in training"]) == (2, 1)
