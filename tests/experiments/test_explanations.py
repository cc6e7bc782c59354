import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histotransfer.datasets import breakhis
from histotransfer.datasets.phantom import truth
from histotransfer.errors import HistotransferError
from histotransfer.experiments import explanations
from histotransfer.experiments.explanations import predict_images, unseen_images
from histotransfer.records import read_run
from histotransfer.report.explanations import gates_beside_record
from histotransfer.tiles import TileSource


@pytest.fixture
def recorded(phantom_root, write_model, write_made_run, make_predictions, tmp_path):
    """A run whose test images are of the phantom, with the small network's weights."""
    table = breakhis.load(phantom_root)
    images = table["path"].map(lambda path: path.removeprefix(f"{phantom_root}/"))
    columns = table[["patient", "group", "magnification", "subtype"]].assign(image=images, truth=table["label"])
    part = np.where(table.index % 4, "validation", "test")
    predictions = columns.assign(
        part=part, fold=0, seed=0, logit_benign=0.0, logit_malignant=np.arange(len(table)) % 3 - 1
    )
    weights = write_model()
    extra = {"model.safetensors": lambda path: path.write_bytes(weights.read_bytes())}
    folder = write_made_run(tmp_path / "made" / "ladder", predictions=predictions, extra=extra)
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"profile": "lite"}))
    return folder


def test_a_network_is_shown_images_as_it_was_trained_on_them(write_model, phantom_root):
    table = breakhis.load(phantom_root).iloc[::7]
    seen = predict_images(write_model(), table)
    assert seen.tiles.shape == (len(table), 48, 48, 3)
    assert seen.labels.tolist() == table["label"].tolist() and seen.groups.tolist() == table["group"].tolist()
    x = TileSource(seen.tiles).batch(np.arange(3), np.zeros(3, dtype=int))
    assert seen.model(x).argmax(dim=1).tolist() == seen.predicted[:3].tolist()
    masks = seen.masks()
    assert masks.shape == seen.tiles.shape[:3]
    np.testing.assert_array_equal(masks[0], truth(table["path"].iloc[0]).diagnostic_mask)


def test_labels_that_the_network_does_not_know_are_refused(write_model, phantom_root):
    table = breakhis.load(phantom_root).head(2).assign(label="lung_n")
    with pytest.raises(HistotransferError, match="knows benign, malignant, not lung_n"):
        predict_images(write_model(), table)


def test_phantom_networks_meet_new_patients_and_others_their_test_images(recorded, phantom_root, monkeypatch):
    run, other = read_run(recorded), breakhis.load(phantom_root)
    asked = []
    monkeypatch.setattr(
        explanations, "resolve_root", lambda profile, seed: asked.append((profile, seed)) or phantom_root
    )
    new = unseen_images(replace(run, record={**run.record, "profile": "phantom"}), "/nowhere")
    assert asked == [("phantom", 1)]
    assert not new.duplicated(["group", "magnification"]).any() and set(new["group"]) == set(other["group"])
    own = unseen_images(run, phantom_root)
    test = run.predictions.query("part == 'test'")
    assert [Path(path).name for path in own["path"]] == test["image"].tolist()
    assert set(own["path"]) <= set(other["path"])
    assert own["label"].tolist() == test["truth"].tolist()


def test_the_record_of_explanations_holds_numbers_and_nothing_else(recorded, phantom_root, tmp_path):
    out = explanations.run(recorded, phantom_root, tmp_path / "out")
    record = json.loads((out / "record.json").read_text())
    test = read_run(recorded).predictions.query("part == 'test'")
    assert (record["images"], record["patients"]) == (len(test), test["group"].nunique())
    assert {path.suffix for path in out.iterdir()} == {".csv", ".json"}
    sanity = pd.read_csv(out / "sanity.csv", index_col="step")
    assert sanity.index[0] == "head" and set(sanity["images"]) == {len(test)}
    gates = pd.read_csv(out / "gate_differences.csv", index_col="gate")
    assert len(gates) == 7 and (gates["highest"] == 1).all()  # untrained


def test_weights_of_another_run_are_refused(recorded, phantom_root, tmp_path):
    (recorded / "model.safetensors").write_bytes(b"others")
    with pytest.raises(HistotransferError, match="not the weights of this run"):
        explanations.run(recorded, phantom_root, tmp_path / "out")


def test_gates_stand_above_the_recorded_ones_each_under_its_n(write_model, phantom_root, tmp_path):
    seen = predict_images(write_model(), breakhis.load(phantom_root).iloc[::7])
    columns = ["channels", "lowest", "highest", "largest", "low", "high", "apart"]
    table = pd.DataFrame([[8, 0.9, 1.1, 2e-6, -1e-6, 5e-6, 3]], columns=columns, index=["transition1"])
    (tmp_path / "record.json").write_text(json.dumps({"images": 7, "patients": 3}))
    table.rename_axis("gate").to_csv(tmp_path / "gate_differences.csv")
    both = gates_beside_record(table * 2, seen.groups, tmp_path)
    own = f"own: {len(seen.groups)} images, {len(set(seen.groups))} patients"
    assert both.index.tolist() == [(own, "transition1"), ("real: 7 images, 3 patients", "transition1")]
    assert both["largest"].tolist() == [4, 2] and both["low"].tolist() == [-2, -1] and both["channels"].iloc[1] == 8
    with pytest.raises(HistotransferError, match="no record of explanations"):
        gates_beside_record(table, seen.groups, tmp_path / "nowhere")
