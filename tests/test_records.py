import gzip
import hashlib
import json
import math

import numpy as np
import pandas as pd
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import evaluate
from histotransfer.files import whole_folder, write_json
from histotransfer.records import PREDICTIONS, RECORD_KEYS, environment, fingerprint, image_paths, read_run

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
