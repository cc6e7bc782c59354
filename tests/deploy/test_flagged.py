import numpy as np
import pandas as pd
import pytest

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis
from histotransfer.deploy import flagged
from histotransfer.deploy.flagged import HELD_OUT, run
from histotransfer.deploy.shipping import held_out_distances
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.familiarity import FALSE_ALARMS, Familiarity
from histotransfer.files import file_hash, read_json
from histotransfer.models.weights import save_model
from histotransfer.study.runner import features_of, train_unrecorded

pytestmark = pytest.mark.usefixtures("small_network")
SETTINGS = {"size": 48, "source": "none", "breakhis_schedule": "head:1", "normaliser": "none", "split": "none"}


def silent(line):
    """Report nothing."""


@pytest.fixture(scope="module")
def shipped(phantom_root, tmp_path_factory):
    """A network trained on every phantom patient, which knows what is unlike them."""
    config, folder = ladder_config("phantom", SETTINGS), tmp_path_factory.mktemp("shipped")
    model, task, description = train_unrecorded(config, phantom_root, folder, report=silent)
    features = features_of(model, task, "train")
    known = Familiarity.fit(features)
    known = known.with_threshold(known.distances(features))
    save_model(model, folder / "final.safetensors", description, known.tensors())
    return folder / "final.safetensors"


@pytest.fixture(scope="module")
def recorded(shipped, with_ucsb, phantom_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("record") / "flagged"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flagged, "COUNT", 12)
        patch.setattr(flagged, "resolve_root", lambda profile: phantom_root)
        run(shipped, with_ucsb, out, report=silent)
    return pd.read_csv(out / "flagged.csv", index_col="kind"), read_json(out / "record.json")


def test_every_kind_is_there_with_shares_and_intervals(recorded, shipped):
    table, record = recorded
    kinds = [HELD_OUT, "UCSB", "LC25000 (lung)", "phantom", "photograph", "noise", "blank", "grey"]
    assert table.index.tolist() == kinds
    assert table.loc[HELD_OUT, ["pictures", "groups"]].tolist() == [96, 24]
    assert table.loc["UCSB", "groups"] == 6
    shares = table[["unlike", "otherwise noted", "refused"]]
    assert ((shares >= 0) & (shares <= 1)).all(axis=None)
    ends = table.dropna(subset=["low"])
    assert HELD_OUT in ends.index
    assert ((ends["low"] <= ends["unlike"]) & (ends["unlike"] <= ends["high"])).all()
    assert record["network"]["sha256"] == file_hash(shipped)


def test_what_is_flagged_is_what_predict_says(recorded):
    table, _ = recorded
    assert table.loc["grey", "refused"] == 1  # a grey picture has no stains
    assert table.loc["blank", "otherwise noted"] > 0.8  # too little tissue, or one stain only
    assert table.loc["noise", "unlike"] > table.loc["phantom", "unlike"]  # it was trained on phantoms like these


def test_held_out_patients_are_judged_by_networks_and_thresholds_of_others(phantom_root, tmp_path, recorded):
    recipe = ladder_config("phantom", SETTINGS | {"split": "patient"})
    found = held_out_distances(recipe, phantom_root, tmp_path, silent)
    table = breakhis.load(phantom_root)
    assert sorted(found["path"]) == sorted(table["path"])  # everybody once
    assert not (found.groupby("group")["fold"].nunique() > 1).any()
    unlike = [
        (own["distance"] > np.quantile(found.loc[found["fold"] != fold, "distance"], 1 - FALSE_ALARMS)).sum()
        for fold, own in found.groupby("fold")
    ]
    assert recorded[0].loc[HELD_OUT, "unlike"] == pytest.approx(sum(unlike) / len(found), abs=1e-4)


def test_a_network_that_does_not_know_its_training_pictures_is_refused(write_model, with_ucsb, tmp_path):
    with pytest.raises(HistotransferError, match="give a network of `histotransfer study ship`"):
        run(write_model(), with_ucsb, tmp_path / "out", report=silent)
    assert not (tmp_path / "out").exists()
