"""What version 0.1 wrote is read by today's code; what cannot be is refused with the remedy."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histotransfer.config import LadderConfig, validated
from histotransfer.deploy.predict import Prediction, Predictor
from histotransfer.evaluation.metrics import evaluate
from histotransfer.records import difference, read_run
from histotransfer.study.plan import OF_A_RUN
from histotransfer.tiles import KEY_BYTES
from histotransfer.transfer.checkpoint import Checkpoint
from histotransfer.transfer.prefix_cache import ActivationStore

OLD = Path(__file__).parent / "samples" / "version_0_1"
RUN = OLD / "records" / "primary" / "se-lung-s0-f0"


def test_an_old_record_is_read():
    run = read_run(RUN)
    assert run.record["dose"] == {} and run.history.columns[0] == "dataset"
    config = {name: value for name, value in run.record["config"].items() if name not in OF_A_RUN}
    assert "thaw" in config and validated(LadderConfig, config).unfreeze == "all"
    again, recorded = (
        metrics["test"]["image"]["all"] for metrics in (evaluate(run.predictions), run.record["metrics"])
    )
    assert again["accuracy"] == pytest.approx(recorded["accuracy"])
    assert difference(RUN, RUN) == ([], True)


def test_an_old_network_predicts(tmp_path):
    Image.fromarray(np.full((40, 50, 3), 200, np.uint8)).save(tmp_path / "a.png")
    predictor = Predictor(OLD / "network.safetensors")
    (found,) = predictor.predict([tmp_path / "a.png"])
    assert isinstance(found, Prediction) and found.label in predictor.description.classes


def test_old_activations_are_read_and_old_leftovers_removed(tmp_path):
    (folder,) = (OLD / "prefix").iterdir()
    copy = shutil.copytree(folder, tmp_path / folder.name)
    (copy / f"{'0' * 64}.4711.part").write_bytes(b"half")
    store = ActivationStore(copy)
    store.refresh()
    assert store.rebuilt == 0 and store.get([bytes([2]) * KEY_BYTES]).shape == (1, 2, 2, 4)


def test_a_checkpoint_of_another_version_is_another_trainings(tmp_path):
    """Its name holds the version, so the training starts over."""
    old, new = (Checkpoint(tmp_path, {"version": version}) for version in ("0.1.0", "0.2.0"))
    old.save({"epoch": 3})
    assert new.load() is None and old.load() == {"epoch": 3}
