import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from histotransfer import files
from histotransfer.config import ladder_config
from histotransfer.errors import one_line
from histotransfer.splits import grouped_split
from histotransfer.transfer.checkpoint import Checkpoint
from histotransfer.transfer.stages import history, train_stages
from histotransfer.transfer.task import Task

SCHEDULE = [("head", 1), ("block4", 2)]


class Killed(Exception):
    """Stands in for the end of the process."""


class Dying(Checkpoint):
    """Keeps every epoch, and is killed after some of them."""

    def __init__(self, folder, lives):
        super().__init__(folder, {"of": "a test"}, seconds=0)
        self.lives = lives

    def save(self, state):
        super().save(state)
        self.lives -= 1
        if self.lives == 0:
            raise Killed("killed")


@pytest.fixture(scope="module")
def pictures(make_table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    table = make_table([(f"g{i // 2}", ("benign", "malignant")[i // 2 % 2]) for i in range(48)], folder)
    for path in table["path"]:
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return table


def trained(make_model, pictures, checkpoint, **settings):
    config = ladder_config(
        "phantom",
        {"size": 32, "normaliser": "none", "batch_size": 8, "learning_rate": 0.01, "rate_decay": 1, **settings},
    )
    split = grouped_split(pictures, fold=0, folds=3, seed=0)
    task = Task(split, ("benign", "malignant"), 4, pictures["path"].map(str)[0].rpartition("/")[0], config)
    model = make_model()
    lines = []
    stages = train_stages(model, task, SCHEDULE, config, checkpoint, report=lines.append)
    return model.state_dict(), stages, lines


def same(one, other):
    for a, b in zip(one[0].values(), other[0].values(), strict=True):
        assert torch.equal(a, b)
    assert history(one[1]).equals(history(other[1]))
    for a, b in zip(one[1], other[1], strict=True):
        assert np.array_equal(a.logits, b.logits)


@pytest.mark.parametrize(
    ("settings", "deaths"),
    [({}, range(1, 6)), ({"cache": False}, [3]), ({"patience": 1}, [3, 4])],
    ids=["cache", "tiles", "patience"],
)
def test_a_training_killed_after_any_epoch_ends_with_the_same_bits(make_model, pictures, tmp_path, settings, deaths):
    """The saves of a whole training: head's epoch, head's end, two epochs of block 4, its end."""
    whole = trained(make_model, pictures, None, **settings)
    for death in deaths:
        folder = tmp_path / str(death)
        with pytest.raises(Killed):
            trained(make_model, pictures, Dying(folder, death), **settings)
        same(trained(make_model, pictures, Checkpoint(folder, {"of": "a test"}), **settings), whole)


def test_a_finished_training_is_read_back_without_training(make_model, pictures, tmp_path):
    keep = Checkpoint(tmp_path, {})
    first = trained(make_model, pictures, keep)
    model, stages, lines = trained(make_model, pictures, Checkpoint(tmp_path, {}))
    same((model, stages), first[:2])
    assert lines == ["made: 2 of 2 stages were trained before"]
    assert [stage.seconds for stage in stages] == [stage.seconds for stage in first[1]]


def test_another_training_has_another_file(tmp_path):
    one, other = Checkpoint(tmp_path, {"a": 1, "b": [2]}), Checkpoint(tmp_path, {"a": 1, "b": [3]})
    one.save({"x": 1})
    assert other.load() is None
    assert Checkpoint(tmp_path, {"b": [2], "a": 1}).load() == {"x": 1}
    one.path.replace(other.path)  # a foreign file under its name
    assert other.load() is None


def test_a_full_disk_in_mid_training_is_still_one_line(make_model, pictures, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    keep = Checkpoint(tmp_path, {}, seconds=0)
    with pytest.raises(OSError) as error:
        trained(make_model, pictures, keep, cache=False)
    assert one_line(error.value).startswith(f"{keep.path}: No space left on device; free some space")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a checkpoint", None])
def test_a_file_that_cannot_be_read_is_no_checkpoint(tmp_path, content):
    keep = Checkpoint(tmp_path, {})
    keep.save({"x": torch.zeros(1000)})
    whole = keep.path.read_bytes()
    keep.path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert keep.load() is None


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    keep = Checkpoint(tmp_path, {})
    keep.save({"x": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            keep.save({"x": 2})
    assert keep.load() == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == [keep.path.name]


def test_within_a_stage_a_checkpoint_waits_its_turn(tmp_path):
    assert not Checkpoint(tmp_path, {}).due()
    assert Checkpoint(tmp_path, {}, seconds=0).due()


def test_clearing_takes_what_a_death_while_writing_left(tmp_path):
    checkpoint = Checkpoint(tmp_path, {"run": 1})
    checkpoint.save({"epoch": 1})
    checkpoint.path.with_name(f".{checkpoint.path.name}.4711.part").write_bytes(b"PK")
    checkpoint.clear()
    assert not list(tmp_path.iterdir())


def test_a_run_that_ends_takes_nothing_from_one_that_is_writing(tmp_path, monkeypatch):
    """The other has made sure of its folder and opens its file when the first one clears its own."""
    one, other = (Checkpoint(tmp_path / "runs", {"n": n}) for n in (1, 2))
    one.save({})
    write = Path.write_bytes

    def clears_first(path, content):
        one.clear()
        write(path, content)

    monkeypatch.setattr(Path, "write_bytes", clears_first)
    other.save({"x": 1})
    assert other.load() == {"x": 1} and list(other.path.parent.iterdir()) == [other.path]
    other.clear()
    other.clear()
