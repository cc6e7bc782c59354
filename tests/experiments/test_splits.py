import json

import pandas as pd

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis, lc25000
from histotransfer.experiments import splits
from histotransfer.experiments.splits import FOLDS, SEEDS, folds_by_patient, parts_of_originals
from histotransfer.splits import make_split
from histotransfer.study.tasks import source_task


def test_the_lists_are_the_splits_that_runs_use(phantom_root):
    table = breakhis.load(phantom_root)
    folds = folds_by_patient(table).set_index("group")
    assert len(folds) == 24 and folds["images"].sum() == len(table)
    for seed in SEEDS:
        for fold in range(FOLDS):
            config = ladder_config("phantom", {"seed": seed, "fold": fold})
            split = make_split(table, config, phantom_root)
            of = split["group"].map(folds[f"fold_seed_{seed}"])
            assert ((split["split"] == "test") == (of == fold)).all()
            assert ((split["split"] == "validation") == (of == (fold + 1) % FOLDS)).all()


def test_originals_are_where_the_lung_step_has_them(phantom_root):
    parts = parts_of_originals(lc25000.load(phantom_root)).set_index("group")
    for seed in SEEDS:
        task = source_task(ladder_config("phantom", {"seed": seed, "normaliser": "none"}), phantom_root)
        assert (task.table["split"] == task.table["group"].map(parts[f"part_seed_{seed}"])).all()


def test_the_committed_lists_are_those_of_the_real_subset(data_root, tmp_path):
    made = splits.run(data_root, tmp_path / "splits")
    for name in ("breakhis", "lc25000"):
        pd.testing.assert_frame_equal(pd.read_csv(made / f"{name}.csv"), pd.read_csv(f"results/splits/{name}.csv"))
    assert json.loads((made / "record.json").read_text())["data"]["breakhis"]["groups"] == 54
