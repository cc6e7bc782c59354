import csv
import io
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histotransfer import cli
from histotransfer.deploy import release
from histotransfer.errors import DEBUG
from histotransfer.models import weights
from histotransfer.study import runner

COLOURS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command in this process: exit status, lines of output, lines of errors."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["histotransfer", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code, out.splitlines(), err.splitlines()

    return command


@pytest.fixture
def good(tmp_path):
    files = [tmp_path / "good 1.png", tmp_path / "good,2.png"]
    for file, array in zip(files, (COLOURS, COLOURS // 2), strict=True):
        Image.fromarray(array).save(file)
    return files


@pytest.fixture
def bad(tmp_path):
    """One of each kind of picture that cannot be predicted."""
    contents = {
        "text.png": b"hello",
        "empty.png": b"",
        "cut.png": None,
        "grey.png": COLOURS[..., 0].copy(),
        "deep-grey.png": COLOURS[..., 0].astype(np.uint16) * 257,
        "hole.png": np.concatenate([COLOURS, COLOURS[..., :1]], axis=2),
        "dot.png": COLOURS[:1, :1],
    }
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, "PNG")
    contents["cut.png"] = buffer.getvalue()[:2000]
    huge = bytearray(buffer.getvalue())
    huge[16:24] = (60_000).to_bytes(4) * 2
    contents["huge.png"] = bytes(huge)  # its header's checksum is wrong, too
    for name, content in contents.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            Image.fromarray(content).save(tmp_path / name)
    return [*(tmp_path / name for name in contents), tmp_path / "gone.png"]


def test_the_version_is_that_of_the_package(run):
    assert run("--version") == (0, [version("histotransfer")], [])


def test_good_pictures_are_predicted_with_status_0(run, write_model, good):
    status, out, err = run("predict", *good, "--weights", write_model())
    assert (status, err) == (0, ["predicted: 2; noted: 2; refused: 0; passed over: 0"])
    rows = list(csv.DictReader(out))
    assert list(rows[0]) == ["file", "label", "p_benign", "p_malignant", "set", "note", "profile"]
    assert [row["file"] for row in rows] == [str(file) for file in good]
    assert {row["label"] for row in rows} <= {"benign", "malignant"}
    assert all(float(row["p_benign"]) + float(row["p_malignant"]) == pytest.approx(1) for row in rows)
    assert {row["profile"] for row in rows} == {"phantom"}


def test_without_weights_the_network_that_ships_predicts(run, write_model, good, monkeypatch):
    monkeypatch.setattr("histotransfer.deploy.predict.SHIPPED", write_model())
    assert run("predict", *good) == run("predict", *good, "--weights", write_model())


def test_each_bad_picture_is_one_line_and_the_good_ones_are_predicted(run, write_model, good, bad):
    status, out, err = run("predict", *bad[:4], *good, *bad[4:], "--weights", write_model())
    assert status == 2
    assert [line.split(": ")[0] for line in err] == [*map(str, bad), "predicted"]
    assert [row["file"] for row in csv.DictReader(out)] == [str(file) for file in good]


def test_predictions_go_into_a_file(run, write_model, good, bad, tmp_path):
    screen = run("predict", *good, "--weights", write_model())[1]
    status, out, _ = run("predict", *good, bad[0], "--weights", write_model(), "--out", tmp_path / "found.csv")
    assert (status, out) == (2, [])
    assert (tmp_path / "found.csv").read_text().splitlines() == screen
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_is_predicted_as_json_lines_with_overlays(run, write_model, good, bad, tmp_path, tmp_path_factory):
    overlays = tmp_path_factory.mktemp("seen") / "new" / "overlays"
    options = ["--format", "jsonl", "--overlays", overlays, "--weights", write_model()]
    status, out, err = run("predict", tmp_path, *options)
    assert status == 2  # the folder has bad pictures too
    assert len(err) == len(bad)  # not the one that is gone, but the summary
    assert err[-1] == f"predicted: 2; noted: 2; refused: {len(bad) - 1}; passed over: .safetensors (1)"
    assert [json.loads(line)["file"] for line in out] == sorted(map(str, good))
    assert len(list(overlays.iterdir())) == len(good)
    named = run("predict", tmp_path, "--weights", write_model(), "--verbose")[2]
    assert named[-2] == f"  {tmp_path}/model.safetensors: .safetensors"


def test_an_empty_folder_is_one_line(run, write_model, tmp_path):
    (tmp_path / "empty").mkdir()
    status, out, err = run("predict", tmp_path / "empty", "--weights", write_model())
    assert (status, len(out), len(err)) == (2, 1, 2)
    assert err[0].startswith(str(tmp_path / "empty"))


def test_export_writes_and_names_its_files(run, write_model, tmp_path):
    status, out, err = run("export", write_model(), "--to", "safetensors", "--out", tmp_path / "new")
    assert (status, err) == (0, [])
    assert out[1:] == [str(tmp_path / "new" / name) for name in ("model.safetensors", "model.safetensors.md")]
    status, out, err = run("export", write_model(), "--to", "safetensors", "--out", write_model())
    assert (status, out, len(err)) == (2, [], 1)
    assert "cannot be a folder" in err[0]


@pytest.mark.parametrize("out", ["gone/found.csv", "folder"])
def test_an_output_that_cannot_be_written_is_one_line(run, write_model, good, tmp_path, out):
    (tmp_path / "folder").mkdir()
    status, _, err = run("predict", *good, "--weights", write_model(), "--out", tmp_path / out)
    assert status == 2
    assert len(err) == 1
    assert str(tmp_path / out) in err[0]


def test_missing_weights_are_one_line(run, good, tmp_path):
    status, out, err = run("predict", *good, "--weights", tmp_path / "gone.safetensors")
    assert (status, out) == (2, [])
    assert len(err) == 1
    assert err[0].startswith(f"error: {tmp_path / 'gone.safetensors'}: no such weights file")


@pytest.mark.parametrize(
    ("arguments", "trouble"),
    [
        (["--set", "sise=64"], "error: sise: unknown; choose from profile, size"),
        (["--set", "size=large"], "error: size: 'large' refused"),
        (["--set", "size=8"], "error: size: '8' refused"),
        (["--set", "size"], "error: --set size: write it as key=value"),
        (["--set", "breakhis_schedule=head:0"], "error: breakhis_schedule:"),
        (["--set", "profile=lite"], "error: profile: choose it with --profile"),
        (["--data", "/no/such/folder"], "error: /no/such/folder: no such folder"),
        (["--profile", "lite"], "error: profile lite needs real images: give their folder with --data"),
        (["--profile", "paper"], "error: profile paper needs real images"),
    ],
)
def test_a_ladder_that_cannot_run_is_one_line(run, tmp_path, arguments, trouble):
    status, out, err = run("ladder", "--out", tmp_path / "out", *arguments)
    assert (status, out) == (2, [])
    assert len(err) == 1
    assert err[0].startswith(trouble)
    assert not (tmp_path / "out").exists()


def test_ladder_hands_over_what_was_typed(run, tmp_path, monkeypatch):
    seen = {}

    def run_ladder(config, root, out, *, own, pattern, progress, verbose, report):
        seen.update(config=config, root=root, out=out, own=own, progress=progress, verbose=verbose)
        report("working")
        return out / "ladder"

    def write_card(weights, report):
        report("how good it is")
        return f"{weights}.md"

    monkeypatch.setattr(runner, "run_ladder", run_ladder)
    monkeypatch.setattr(release, "write_card", write_card)
    settings = ["--set", "size=64", "--set", "normaliser=none"]
    status, out, err = run("ladder", "--profile", "lite", "--data", tmp_path, *settings, "--out", tmp_path / "spine")
    assert (status, err) == (0, [])
    folder = tmp_path / "spine" / "ladder"
    last = [f"record: {folder / 'record.json'}", f"model card: {folder / 'model.safetensors.md'}"]
    assert out == ["working", "how good it is", *last]
    assert (seen["config"].profile, seen["config"].size, seen["config"].normaliser) == ("lite", 64, "none")
    assert (seen["root"], seen["out"], seen["progress"]) == (tmp_path, tmp_path / "spine", False)
    assert (seen["own"], seen["verbose"]) == (None, False)
    run("ladder", "--own", tmp_path / "mine.csv", "--out", tmp_path / "spine", "--verbose")
    assert (seen["root"], seen["own"], seen["verbose"]) == (None, tmp_path / "mine.csv", True)


def test_an_unknown_profile_is_a_usage_error(run, tmp_path):
    status, out, err = run("ladder", "--profile", "huge", "--out", tmp_path)
    assert (status, out) == (2, [])
    assert "huge" in "\n".join(err)


def test_data_summary_counts_what_is_there(run, phantom_root):
    status, out, err = run("data", "summary", phantom_root)
    assert (status, err) == (0, [])
    assert {"BreakHis", "LC25000 (lung)"} <= set(out)
    total = next(line for line in out if line.startswith("all"))
    assert total.split() == ["all", "24", "24", "24", "24", "96", "24", "24"]


def test_data_summary_of_another_folder_is_one_line(run, tmp_path):
    status, _, err = run("data", "summary", tmp_path)
    assert status == 2
    assert len(err) == 1
    assert "holds neither" in err[0]


def test_weights_fetch_prints_source_and_hash(run, trunk, tmp_path, monkeypatch):
    monkeypatch.setenv("HISTOTRANSFER_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_download", lambda: trunk)
    status, out, _ = run("weights", "fetch")
    assert status == 0
    assert out == [f"ImageNet weights: {trunk.source}", f"content hash: {trunk.content_hash}"]
    assert (tmp_path / "densenet121-imagenet.safetensors").exists()


def test_the_installed_command_exits_with_status_2_and_one_line(tmp_path):
    command = [Path(sys.executable).with_name("histotransfer"), "ladder", "--profile", "lite", "--out", tmp_path / "x"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: profile lite needs real images")


def test_where_an_error_comes_from_is_shown_on_demand(run, tmp_path, monkeypatch):
    monkeypatch.setenv(DEBUG, "")
    status, _, errors = run("runs", "diff", tmp_path / "a", tmp_path / "b")
    assert status == 2 and len(errors) == 1
    again, _, more = run("--debug", "runs", "diff", tmp_path / "a", tmp_path / "b")
    assert again == 2 and more[-1] == errors[0] and "Traceback (most recent call last):" in more


def test_a_bug_is_one_line_that_asks_for_a_report(run, tmp_path, monkeypatch):
    monkeypatch.setattr("histotransfer.records.difference", lambda *folders: [][1])
    status, _, errors = run("runs", "diff", tmp_path, tmp_path)
    assert status == 1 and len(errors) == 1 and errors[0].startswith("bug: IndexError: list index out of range")


def test_explain_refuses_a_folder_that_holds_no_run(run, tmp_path):
    status, _, errors = run("explain", tmp_path / "none", "--data", tmp_path, "--out", tmp_path / "out")
    assert status == 2 and len(errors) == 1 and "not a run's folder" in errors[0]
    assert not (tmp_path / "out").exists()


def test_failures_needs_its_weights(run, tmp_path):
    status, _, errors = run("failures", "--out", tmp_path / "out", "--weights", tmp_path / "none.pth")
    assert status == 2 and len(errors) == 1 and "no such weights file" in errors[0]


CHAPTER = """\
# %% tags=["parameters"]
profile = "phantom"
seed = 0

# %%
assert seed != 13, f"{seed} is an unlucky number"
print(profile, seed)
"""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """The folder of a repository with one chapter, made the current one."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/01_made.py").write_text(CHAPTER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["01", "01_made", "notebooks/01_made.py"])
def test_book_run_lists_parameters_and_runs_nothing(run, chapter, name):
    status, out, err = run("book", "run", name, "--list-parameters")
    assert (status, err) == (0, [])
    assert out == [
        'profile  phantom|lite|paper        default "phantom"  phantom, lite or paper',
        "seed     integer, 0 to 2147483647  default 0          seed of everything random in the chapter",
    ]
    assert not (chapter / "_build").exists()


@pytest.mark.parametrize(
    ("arguments", "trouble"),
    [
        (["02", "--out", "out.ipynb"], "error: 02: no such chapter; there are 01_made"),
        (["01"], "error: --out: name the notebook to write"),
        (["01", "--out", "notebooks"], "is a folder; name the notebook to write"),
        (["01", "--out", "out.ipynb", "-p", "seed"], "error: -p seed: write it as -p name value"),
        (["01", "--out", "out.ipynb", "-p", "seed", "x"], "error: chapter 01_made: parameter seed: 'x' refused"),
        (["01", "--out", "out.ipynb", "-p", "seed", "1.5"], "error: chapter 01_made: parameter seed: '1.5' refused"),
        (["01", "--out", "out.ipynb", "-p", "seed", "-1"], "error: chapter 01_made: parameter seed: -1 refused"),
        (["01", "--out", "out.ipynb", "-p", "sede", "1"], "no parameter 'sede'; it takes profile, seed"),
        (["01", "--out", "out.ipynb", "-p", "profile", "huge"], "parameter profile: 'huge' refused"),
    ],
)
def test_book_run_refuses_in_one_line_before_anything_runs(run, chapter, arguments, trouble):
    status, out, err = run("book", "run", *arguments)
    assert (status, out, len(err)) == (2, [], 1)
    assert trouble in err[0]
    assert {path.name for path in chapter.iterdir()} == {"notebooks"}


def test_book_run_writes_the_executed_notebook_and_keeps_it_when_the_next_run_breaks(run, chapter):
    status, out, err = run("book", "run", "01", "-p", "seed", "7", "-p", "profile", "lite", "--out", "made/out.ipynb")
    assert (status, out, err) == (0, ["made/out.ipynb"], [])
    written = (chapter / "made/out.ipynb").read_text()
    assert json.loads(written)["cells"][1]["outputs"][0]["text"] == ["lite 7\n"]

    status, out, err = run("book", "run", "01", "-p", "seed", "13", "--out", "made/out.ipynb")
    assert (status, out) == (2, [])
    assert err[:2] == ['assert seed != 13, f"{seed} is an unlucky number"', "print(profile, seed)"]
    assert err[2].startswith("error: chapter 01_made failed in code cell 2 of 2: AssertionError: 13 is an unlucky")
    assert [path.name for path in (chapter / "made").iterdir()] == ["out.ipynb"]
    assert (chapter / "made/out.ipynb").read_text() == written


OLD = {
    ("leakage",): ("experiment", "leakage"),
    ("normalisation",): ("experiment", "normalisation"),
    ("failures",): ("experiment", "failures"),
    ("explain",): ("experiment", "explanations"),
    ("study", "complexity"): ("experiment", "complexity"),
}


@pytest.mark.parametrize("old", OLD, ids=" ".join)
def test_a_command_of_version_0_1_still_takes_what_it_took_and_is_listed_no_more(run, old):
    status, _, _ = run(*old, "--help")
    assert status == 0
    before, after = ([line for line in run(*names, "--help")[1] if "--" in line] for names in (old, OLD[old]))
    assert before == after and len(before) > 2
    listed = run(*old[:-1], "--help")[1]
    assert not any(line.strip("│ ").startswith(old[-1] + " ") for line in listed)


@pytest.mark.parametrize("command", [("data", "patients"), ("experiment", "patients", "--data")], ids=" ".join)
def test_patients_are_recorded_by_the_old_command_and_the_new(run, phantom_root, tmp_path, command):
    status, lines, _ = run(*command, phantom_root, "--out", tmp_path / "patients")
    assert (status, lines) == (0, [f"record: {tmp_path / 'patients'}"])
    assert (tmp_path / "patients" / "patients.csv").is_file()


@pytest.mark.parametrize("name", ["gates", "explanations"])
def test_an_experiment_on_a_run_refuses_a_folder_that_holds_none(run, tmp_path, name):
    status, _, errors = run("experiment", name, tmp_path / "none", "--data", tmp_path, "--out", tmp_path / "out")
    assert status == 2 and len(errors) == 1 and "not a run's folder" in errors[0]
    assert not (tmp_path / "out").exists()


def test_duplicates_without_lung_images_are_one_line(run, tmp_path):
    status, _, errors = run("experiment", "duplicates", "--data", tmp_path, "--out", tmp_path / "out")
    assert status == 2 and len(errors) == 1 and str(tmp_path) in errors[0]


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["book", "build"], "papermill", "book"),
        (["book", "run", "01", "--list-parameters"], "jupytext", "book"),
        (["course", "export", "--out", "course"], "nbformat", "course"),
    ],
)
def test_without_its_extra_a_command_says_what_to_install(arguments, package, extra, tmp_path):
    """In a fresh interpreter: here the modules are imported already."""
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['histotransfer', *{arguments}]; "
        "from histotransfer.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {package} is not installed: pip install 'histotransfer[{extra}]'\n"
