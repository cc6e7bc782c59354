import numpy as np
import pytest

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis
from histotransfer.study import leakage
from histotransfer.study.leakage import RUNS, official_overlaps, out_of_fold, run_leakage
from histotransfer.study.records import read_run
from histotransfer.study.tables import gap

CONFIG = ladder_config("phantom", {"size": 32, "folds": 3, "normaliser": "none"})


@pytest.fixture
def patients(make_table):
    """24 patients with four images; features know the patient perfectly and the class not at all."""
    images = [(f"p{i // 4}", ("benign", "malignant")[i // 4 % 2]) for i in range(96)]
    features = np.repeat(np.random.default_rng(0).normal(size=(24, 30)), 4, axis=0)
    return make_table(images), features


def predictions(table, features, units):
    images = table["path"].str.rsplit("/").str[-1]
    return out_of_fold(table, images, features, units, breakhis.LABELS, CONFIG)


def test_memory_for_patients_is_worth_everything_by_image_and_nothing_by_patient(patients):
    table, features = patients
    by_patient, _, audit = predictions(table, features, table["group"])
    by_image, chosen, leaking = predictions(table, features, table["path"])

    def accuracy(frame):
        return ((frame["logit_malignant"] > frame["logit_benign"]) == (frame["truth"] == "malignant")).mean()

    assert accuracy(by_image) > 0.9
    assert accuracy(by_patient) < 0.75
    assert all(fold["groups"] == 0 for fold in audit.values())
    assert all(fold["groups"] > 0.8 * fold["of"] for fold in leaking.values())
    assert len(chosen) == 3


def test_each_image_is_predicted_once_in_the_order_of_the_table(patients):
    table, features = patients
    frame, *_ = predictions(table, features, table["group"])
    assert frame["image"].tolist() == [f"{i:04d}.png" for i in range(96)]
    assert np.isfinite(frame[["logit_benign", "logit_malignant"]]).all(axis=None)
    assert frame.groupby("group")["fold"].nunique().max() == 1


def test_four_runs_are_recorded_and_can_be_compared(phantom_root, trunk, tmp_path):
    run_leakage(CONFIG, phantom_root, tmp_path / "leakage", report=str)
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
