import gzip
import hashlib
import json
import math
import os
import subprocess

import numpy as np
import pandas as pd
import pytest

from histotransfer import records
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import evaluate
from histotransfer.files import whole_folder, write_json
from histotransfer.records import PREDICTIONS, RECORD_KEYS, environment, fingerprint, image_paths, read_run

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
FILES = ["history.csv", PREDICTIONS, "provenance.json", "record.json"]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_run_is_read_back_as_written(tmp_path, write_made_run, make_predictions):
    run = read_run(write_made_run(tmp_path / "spine" / "ladder"))
    assert files(run.folder) == FILES
    assert set(run.record) == set(RECORD_KEYS)
    named = make_predictions().assign(image=lambda frame: frame["image"].str.removeprefix("breast/"))
    pd.testing.assert_frame_equal(run.predictions, named, check_dtype=False, rtol=1e-6)
    assert run.history["train_loss"].tolist() == pytest.approx([1 / 3], abs=1e-7)
    assert run.provenance["seconds"] == 1
    assert {"git", "packages", "hardware", "python"} <= set(environment())


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one file in it, in place of the one that the package lies in; and its commit."""
    (tmp_path / "records.py").write_text("1")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    return tmp_path, subprocess.check_output([*GIT, "rev-parse", "HEAD"], cwd=tmp_path, text=True).strip()


@pytest.mark.parametrize("lock", [None, "left behind"])
def test_the_state_of_a_checkout_is_told_though_git_is_locked(checkout, lock):
    """By a git that was killed, or by one that is at work."""
    folder, commit = checkout
    left = folder / ".git" / "index.lock"
    if lock:
        left.write_text(lock)
    assert environment()["git"] == commit
    (folder / "records.py").write_text("2")
    assert environment()["git"] == f"{commit}+changes"
    assert left.exists() == bool(lock)


def test_to_tell_the_state_of_a_checkout_nothing_is_written_in_it(checkout):
    """Killed while it did, it would leave git locked."""
    folder, commit = checkout
    index = folder / ".git" / "index"
    before = index.read_bytes()
    os.utime(folder / "records.py", (1, 1))  # `git status` by itself would note that in the index
    assert environment()["git"] == commit
    assert index.read_bytes() == before
    subprocess.run([*GIT, "status"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    assert index.read_bytes() != before


def test_images_keep_their_folders_where_names_alone_do_not_tell_them_apart(tmp_path, write_made_run, make_predictions):
    predictions = make_predictions()
    predictions["image"] = [f"{i}/field.png" for i in range(len(predictions))]
    run = read_run(write_made_run(tmp_path / "run", predictions=predictions))
    assert run.predictions["image"].tolist() == predictions["image"].tolist()


def test_images_of_a_run_are_found_by_name_or_by_path(tmp_path):
    for name in ("a/1.png", "b/c/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for images in (["2.png", "1.png"], ["b/c/2.png", "a/1.png"]):
        assert image_paths(pd.Series(images), tmp_path).tolist() == [f"{tmp_path}/b/c/2.png", f"{tmp_path}/a/1.png"]
    with pytest.raises(HistotransferError, match=r"3\.png is not there; give the folder that the run was made from"):
        image_paths(pd.Series(["1.png", "3.png"]), tmp_path)


def test_metrics_can_be_had_again_from_the_predictions(tmp_path, write_made_run, make_predictions):
    run = read_run(write_made_run(tmp_path / "run", metrics=evaluate(make_predictions())))
    again, recorded = evaluate(run.predictions)["test"], run.record["metrics"]["test"]
    for level, magnification in [("image", "40"), ("image", "all"), ("patient", "100")]:
        assert again[level][magnification] == pytest.approx(recorded[level][magnification])


def test_artifacts_are_the_hashes_of_the_files(tmp_path, write_made_run):
    folder = write_made_run(tmp_path / "run", extra={"model.bin": lambda path: path.write_bytes(b"weights")})
    artifacts = json.loads((folder / "record.json").read_text())["artifacts"]
    assert artifacts == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in {
            "history.csv": (folder / "history.csv").read_bytes(),
            "model.bin": b"weights",
            "predictions.csv": gzip.decompress((folder / PREDICTIONS).read_bytes()),
        }.items()
    }


def test_equal_runs_are_equal_files(tmp_path, write_made_run):
    write_made_run(tmp_path / "a" / "exp" / "run", provenance={"seconds": 1})
    write_made_run(tmp_path / "b" / "exp" / "run", provenance={"seconds": 2})
    for name in set(FILES) - {"provenance.json"}:
        a, b = ((tmp_path / side / "exp" / "run" / name).read_bytes() for side in "ab")
        assert a == b, name
        assert b"\r" not in (gzip.decompress(a) if name == PREDICTIONS else a)


def test_writing_again_replaces_the_whole_folder(tmp_path, write_made_run):
    folder = write_made_run(tmp_path / "run", extra={"old.bin": lambda path: path.touch()})
    write_made_run(folder)
    assert files(folder) == FILES
    assert files(tmp_path) == ["run"]


@pytest.mark.parametrize("before", [True, False], ids=["over an old run", "first run"])
def test_trouble_in_the_middle_leaves_the_old_run_or_nothing(tmp_path, write_made_run, before):
    folder = tmp_path / "run"
    if before:
        write_made_run(folder)
    old = {name: (folder / name).read_bytes() for name in files(folder)} if before else {}

    def trouble(path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_made_run(folder, extra={"model.bin": trouble})
    assert files(tmp_path) == (["run"] if before else [])
    assert {name: (folder / name).read_bytes() for name in old} == old


def test_an_interrupt_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "run") as temporary:
        (temporary / "half").touch()
        raise KeyboardInterrupt
    assert files(tmp_path) == []


@pytest.mark.parametrize("change", [{"seed": None}, {"colour": "blue"}], ids=["missing", "unknown"])
def test_a_record_has_exactly_its_keys(tmp_path, write_made_run, change):
    record = {key: 0 for key in RECORD_KEYS if key not in ("artifacts", *(k for k, v in change.items() if v is None))}
    record |= {key: value for key, value in change.items() if value is not None}
    with pytest.raises(ValueError, match=next(iter(change))):
        write_made_run(tmp_path / "run", record=record)
    assert files(tmp_path) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_has_no_nan(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"auroc": value})


@pytest.mark.parametrize("name", [PREDICTIONS, "history.csv"])
def test_a_changed_file_is_detected(tmp_path, write_made_run, name):
    folder = write_made_run(tmp_path / "run")
    with gzip.open(folder / name, "rt") if name == PREDICTIONS else (folder / name).open() as file:
        content = file.read()
    with gzip.open(folder / name, "wt") if name == PREDICTIONS else (folder / name).open("w") as file:
        file.write(content[:-2] + ("1" if content[-2] != "1" else "2") + "\n")
    with pytest.raises(HistotransferError, match=f"{name}: is not the file that record.json names"):
        read_run(folder)
    (folder / name).unlink()
    with pytest.raises(HistotransferError, match=f"{name}: is not the file"):
        read_run(folder)


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b\x08"])
def test_predictions_that_cannot_be_unpacked_are_refused(tmp_path, write_made_run, content):
    folder = write_made_run(tmp_path / "run")
    (folder / PREDICTIONS).write_bytes(content)
    with pytest.raises(HistotransferError, match=f"{PREDICTIONS}: is not the file that record.json names"):
        read_run(folder)


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"artifacts": {}}'])
def test_what_is_no_run_is_refused(tmp_path, write_made_run, content):
    folder = write_made_run(tmp_path / "run")
    (folder / "record.json").unlink() if content is None else (folder / "record.json").write_text(content)
    with pytest.raises(HistotransferError, match=str(folder)):
        read_run(folder)


CHANGES = {
    "no config": lambda record: record.pop("config"),
    "no artifacts": lambda record: record.pop("artifacts"),
    "config is null": lambda record: record.update(config=None),
    "metrics are null": lambda record: record.update(metrics=None),
    "a metric is NaN": lambda record: record.update(metrics={"test": {"image": {"all": {"auroc": math.nan}}}}),
    "a metric is text": lambda record: record.update(metrics={"test": {"image": {"all": {"auroc": "1"}}}}),
    "metrics lack a level": lambda record: record.update(metrics={"test": {"image": {"auroc": 1.0}}}),
    "seed is text": lambda record: record.update(seed="0"),
    "split is a list": lambda record: record.update(split=[]),
    "data lack a name": lambda record: record.update(data={}),
    "an unknown key": lambda record: record.update(colour="blue"),
    "deep": lambda record: record.update(config=json.loads('{"a":' * 500 + "1" + "}" * 500)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_record_edited_by_hand_is_refused(tmp_path, write_made_run, change):
    folder = write_made_run(tmp_path / "run")
    record = json.loads((folder / "record.json").read_text())
    change(record)
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(HistotransferError, match=f"^{folder}: not a run's folder ") as error:
        read_run(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "9" * 5000, b"\xff\xfe", "{", "\x00"], ids=lambda text: repr(text[:5])
)
@pytest.mark.parametrize("name", ["record.json", "provenance.json"])
def test_what_is_no_json_is_refused(tmp_path, write_made_run, name, content):
    folder = write_made_run(tmp_path / "run")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(HistotransferError, match=f"^{folder}: not a run's folder "):
        read_run(folder)


@pytest.mark.parametrize("labels", [("0", "1"), ("01", "1"), ("True", "False"), ("NA", "")], ids=str)
def test_labels_that_look_like_numbers_stay_text(tmp_path, write_made_run, make_predictions, labels):
    predictions = make_predictions()
    names = dict(zip(("benign", "malignant"), labels, strict=True))
    columns = {f"logit_{old}": f"logit_{new}" for old, new in names.items()}
    predictions = predictions.replace({"truth": names}).assign(subtype="007", part="1").rename(columns=columns)
    found = read_run(write_made_run(tmp_path / "run", predictions=predictions)).predictions
    assert (set(found["truth"]), set(found["subtype"]), set(found["part"])) == (set(labels), {"007"}, {"1"})
    assert evaluate(found)["1"]["image"]["all"]["images"] == len(found)


def test_names_that_look_like_numbers_stay_text(tmp_path, write_made_run, make_predictions):
    predictions = make_predictions().assign(patient="007", group="NA")
    found = read_run(write_made_run(tmp_path / "run", predictions=predictions)).predictions
    assert set(found["patient"]) == {"007"}
    assert set(found["group"]) == {"NA"}


def test_fingerprint_by_hand():
    images, hashes = pd.Series(["b.png", "a.png"]), pd.Series(["2", "1"])
    assert fingerprint(images, hashes) == hashlib.sha256(b"a.png 1\nb.png 2\n").hexdigest()
    order = np.array([1, 0])
    assert fingerprint(images[order], hashes[order]) == fingerprint(images, hashes)
    assert fingerprint(images, hashes[::-1]) != fingerprint(images, hashes)


def test_a_history_of_version_0_1_is_read_under_todays_names(tmp_path, write_made_run):
    history = pd.DataFrame({"rung": ["breakhis"], "stage": ["head"], "epoch": [1], "train_loss": [0.5]})
    folder = write_made_run(tmp_path / "old" / "ladder", history=history)
    assert (folder / "history.csv").read_text().startswith("rung,")
    assert list(read_run(folder).history) == ["dataset", "stage", "epoch", "train_loss"]
