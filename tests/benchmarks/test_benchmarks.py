"""Every benchmark runs, small: a race that does not start any more has no numbers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.slow


def raced(name, out, *arguments):
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent / "src")}
    command = [sys.executable, "-W", "error::SyntaxWarning", str(BENCHMARKS / name), "--out", str(out), *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


def test_every_benchmark_is_raced_here():
    raced_here = {
        "predict.py",
        "stain.py",
        "duplicates.py",
        "unfreezing.py",
        "intervals.py",
        "growth.py",
        "cluster.py",
        "book.py",
    }
    assert {file.name for file in BENCHMARKS.glob("*.py")} == raced_here | {"plain_predict.py"}


def test_predict(write_model, tmp_path):
    small = ["--images", 3, "--fields", 3, "--repeats", 1]
    record = raced("predict.py", tmp_path / "predict.json", "--weights", write_model(), *small)
    assert {"torch", "openvino", "int8"} <= set(record["pictures"]["ratios"])
    assert all(seconds > 0 for seconds in record["first_row"]["median_seconds"].values())
    assert set(record["fields"]["share"]) == {"torch", "openvino", "int8"}
    checks = record["checks"]
    for name, seconds in {"waited": checks["seconds"], "processors": checks["processor_seconds"]}.items():
        (with_checks,), (without,) = seconds["with"], seconds["without"]
        assert with_checks > 0 and checks["share"][name] == pytest.approx(1 - without / with_checks)


def test_stain(tmp_path):
    record = raced("stain.py", tmp_path / "stain.json", "--repeats", 1, "--fields", 1)
    assert {"macenko", "reinhard", "vahadane"} <= {name.split("_")[0] for name in record["ratios"]}


def test_duplicates(phantom_root, tmp_path):
    record = raced("duplicates.py", tmp_path / "duplicates.json", "--data", phantom_root, "--made", 200)
    assert record["seconds"] > 0 and record["extrapolated"]["images"] == 25_000
    assert (record["made"]["images"], record["made"]["originals"]) == (200, 10)
    assert min(record["made"]["precision"], record["made"]["recall"]) > 0.8


def test_unfreezing(phantom_root, tmp_path):
    small = ("--images", 40, "--size", 32, "--folds", 2)
    record = raced("unfreezing.py", tmp_path / "unfreezing.json", "--data", phantom_root, *small)
    assert all(ratio > 0 for ratio in record["ratios"].values())
    for seconds in record["operations"].values():
        assert seconds["convolutions"] > seconds["pooling"] > 0


def test_intervals(tmp_path):
    record = raced("intervals.py", tmp_path / "intervals.json", "--draws", 100, "--peer-draws", 5)
    assert record["ratio_per_draw"] > 0 and record["largest_difference"] < 1e-12


def test_growth(tmp_path):
    record = raced("growth.py", tmp_path / "growth.json", "--images", 1, "--repeats", 1)
    assert set(record["exponents"]) == {"verify", "groups", "normalise", "cache", "predict"}
    assert all(row["peak_megabytes"] > 0 for rows in record["steps"].values() for row in rows)


def test_cluster(tmp_path):
    record = raced("cluster.py", tmp_path / "cluster.json", "--runs", 4, "--epochs", 1, "--repeats", 1)
    hours = [row["hours"] for row in record["simulated"]]
    assert hours[0] > hours[1] > hours[2] >= record["longest_minutes"] / 60
    assert 0 < record["measured"]["efficiency"] < 2
    assert record["simulated"][0]["efficiency"] > 0.9


def test_book(tmp_path):
    """A book of one made chapter: it runs when it is new and when it is changed."""
    made, root = tmp_path / "made", BENCHMARKS.parent
    for name in ("book/_static", "book/_templates"):
        shutil.copytree(root / name, made / name)
    for name in ("_config.yml", "CHANGELOG.md", "book/references.bib", "book/bibliography.md"):
        shutil.copyfile(root / name, made / name)
    (made / "notebooks").mkdir()
    (made / "notebooks/03_se_densenet.py").write_text(
        "# %% [markdown]\n# # Made {cite:p}`macenko2009`\n\n# %%\n1 + 1\n"
    )
    (made / "book/index.md").write_text("# Index\n")
    toc = "format: jb-book\nroot: book/index\nchapters:\n- file: notebooks/03_se_densenet\n- file: book/bibliography\n"
    (made / "_toc.yml").write_text(toc)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "made"]):
        subprocess.run(["git", *words], cwd=made, check=True)
    builds = raced("book.py", tmp_path / "book.json", "--source", made)["builds"]
    assert {what: build["chapters"] for what, build in builds.items()} == {"cold": 1, "again": 0, "a chapter": 1}
