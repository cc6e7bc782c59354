from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from histotransfer.config import ladder_config
from histotransfer.errors import HistotransferError
from histotransfer.models.weights import Trunk, content_hash
from histotransfer.pictures import decode, resize
from histotransfer.splits import grouped_split
from histotransfer.stain import Reinhard
from histotransfer.tiles import Subset
from histotransfer.transfer.stages import history, initial_model, train_stages, with_new_head
from histotransfer.transfer.task import Task, keep_copies
from histotransfer.transfer.training import predict_logits

CLASSES = ("benign", "malignant")


def prepared(table, settings):
    split = grouped_split(table, fold=settings.fold, folds=settings.folds, seed=settings.seed)
    return Task(split, CLASSES, 4, Path(table["path"][0]).parent, settings)


def config(**settings):
    return ladder_config("phantom", {"size": 32, "normaliser": "none", **settings})


@pytest.fixture
def pictures(make_table, tmp_path):
    """30 groups of two pictures of noise each."""
    generator = np.random.default_rng(0)
    table = make_table([(f"g{i // 2}", CLASSES[i // 2 % 2]) for i in range(60)], tmp_path)
    for path in table["path"]:
        Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return table


def test_a_task_is_split_audited_and_decoded(pictures):
    task = prepared(pictures, config())
    assert task.source.tiles.shape == (60, 32, 32, 3)
    assert task.source.views == 4
    assert task.targets.tolist() == [i // 2 % 2 for i in range(60)]
    rows = np.concatenate([task.rows(part) for part in ("train", "validation", "test")])
    assert sorted(rows) == list(range(60))
    picked = task.rows("test")[:2]
    assert sorted(task.evaluated) == sorted(set(rows) - set(task.rows("train")))
    assert task.source.batch(picked, np.zeros(2, dtype=int)).shape == (2, 3, 32, 32)
    assert task.unchanged == {}
    assert task.images[0] == Path(task.table["path"][0]).name


def test_colours_can_be_those_of_the_training_images_and_of_no_others(pictures):
    settings = config(normaliser="reinhard", normaliser_reference="training", source="none")
    before = prepared(pictures, settings)
    training = [decode(before.table["path"][row]) for row in before.rows("train")]
    fitted = Reinhard().fit(resize(image, 32) for image in training)
    assert before.colours.fingerprint() == fitted.fingerprint() != Reinhard().fingerprint()
    for row in before.rows("validation", "test"):
        Image.fromarray(255 - decode(before.table["path"][row])).save(before.table["path"][row])
    after = prepared(pictures, settings)
    assert after.hashes.tolist() != before.hashes.tolist()
    assert after.colours.fingerprint() == fitted.fingerprint()
    row = before.rows("train")[0]
    assert np.array_equal(after.source.tiles[row], fitted.transform(resize(training[0], 32)))


def test_identical_pictures_in_two_groups_stop_a_task_when_parts_share_them(pictures):
    first = pictures["path"][0]
    for path in pictures["path"]:
        Image.open(first).save(path)
    with pytest.raises(
        HistotransferError, match=r"^made: the split leaks between its parts .*or say allow_leakage=true$"
    ):
        prepared(pictures, config())
    task = prepared(pictures, config(allow_leakage=True))
    assert task.audit["test/train"] == {"patients": 0, "groups": 0, "images": 1}


def test_keep_copies_limits_training_groups_only(make_table):
    table = make_table([(f"g{i % 4}", "benign") for i in range(40)])
    parts = {"g0": "train", "g1": "train", "g2": "validation", "g3": "test"}
    split = table.assign(split=table["group"].map(parts))
    kept = keep_copies(split, 3, seed=0)
    assert kept.groupby("group").size().to_dict() == {"g0": 3, "g1": 3, "g2": 10, "g3": 10}
    assert kept.index.tolist() == list(range(26))
    assert set(kept["path"]) <= set(split["path"])
    assert kept.equals(keep_copies(split, 3, seed=0))
    assert not kept.equals(keep_copies(split, 3, seed=1))
    assert len(keep_copies(split, 10, seed=0)) == 40


@pytest.fixture(scope="module")
def random_trunk():
    from histotransfer.models.se_densenet import SEDenseNet

    torch.manual_seed(9)
    state = {k: v for k, v in SEDenseNet(positions=()).state_dict().items() if k.startswith("features.")}
    return Trunk(state, "made", content_hash(state))


def test_the_ladder_starts_from_the_trunk_with_untrained_gates(random_trunk):
    model = initial_model(3, random_trunk, config(seed=4))
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in random_trunk.state.items())
    assert not any(tensor.any() for name, tensor in state.items() if ".se.expand." in name)
    again, other = (initial_model(3, random_trunk, config(seed=seed)).classifier.weight for seed in (4, 5))
    assert torch.equal(again, model.classifier.weight)
    assert not torch.equal(other, model.classifier.weight)


def test_trunk_and_gates_are_kept_under_a_new_classifier(random_trunk):
    low = initial_model(3, random_trunk, config())
    torch.nn.init.normal_(low.features.denseblock1.se.expand.weight)
    low.features.norm0.running_mean.fill_(7)
    high = with_new_head(low, 2, config())
    assert high.classifier.weight.shape == (2, 1024)
    for (name, a), (other, b) in zip(
        low.features.state_dict().items(), high.features.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(a, b)
    with torch.no_grad():
        high.features.conv0.weight.zero_()
    assert low.features.conv0.weight.any()  # a copy, not the same tensors


def test_training_runs_every_stage_of_its_schedule(make_model, pictures):
    settings = config(batch_size=8)
    task = prepared(pictures, settings)
    lines = []
    model = make_model()
    stages = train_stages(model, task, [("head", 2), ("block4", 1)], settings, report=lines.append)
    epochs = list(history(stages)[["dataset", "stage", "epoch"]].itertuples(index=False, name=None))
    assert epochs == [("made", "head", 1), ("made", "head", 2), ("made", "block4", 1)]
    assert [line.split(":")[0] for line in lines] == ["made, head", "made, block4"]
    assert [stage.logits.shape for stage in stages] == [(len(task.evaluated), 2)] * 2
    np.testing.assert_allclose(
        stages[-1].logits, predict_logits(model, Subset(task.source, task.evaluated), 8), atol=1e-5
    )
    assert not np.allclose(stages[0].logits, stages[1].logits, atol=1e-5)
