"""Records on disk: one folder per run.

It holds `record.json`, `history.csv`, `predictions.csv.gz`, `provenance.json` (and weights, which are not committed).

The first three are byte-identical for equal runs; whatever may differ (times, versions, hardware) is provenance. The
record names its files by the sha256 of what they hold, so that it does not depend on how predictions are compressed.
"""

import contextlib
import hashlib
import os
import platform
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from histotransfer import __version__
from histotransfer.config import ProfileName, validated
from histotransfer.errors import HistotransferError
from histotransfer.files import file_hash, read_json, whole_folder, write_csv, write_json

OLD_COLUMNS = {"rung": "dataset"}  # of histories written by version 0.1
OLD_RECORD: dict[str, Any] = {"dose": {}}  # version 0.1 did not measure it
TEXT = dict.fromkeys(
    ("image", "patient", "group", "subtype", "part", "truth"), str
)  # also where they look like numbers
PREDICTIONS = "predictions.csv.gz"
LOSSES = "losses.csv.gz"  # of single images, epoch by epoch
PACKAGES = (
    "torch",
    "torchvision",
    "fastai",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "pillow",
    "opencv-python-headless",
)


class _Images(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str


class _Split(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: str
    parts: dict[str, int]


class Record(BaseModel):
    """What `record.json` holds: the schema for writing and for reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    experiment: str = Field(description="the experiment that the run belongs to")
    run: str = Field(description="the run's name")
    profile: ProfileName = Field(description="phantom, lite or paper")
    config: dict[str, Any] = Field(description="its settings")
    data: _Images = Field(description="which images it saw")
    split: _Split = Field(description="how patients were kept apart")
    seed: int = Field(ge=0, description="of everything random")
    dose: dict[str, Any] = Field(description="how much of each treatment it was given")
    metrics: dict[str, dict[str, dict[str, dict[str, FiniteFloat | None]]]] = Field(
        description="by part, level and scope"
    )
    artifacts: dict[str, str] = Field(description="sha256 of the files beside it")


RECORD_KEYS = tuple(Record.model_fields)


@dataclass(frozen=True)
class Run:
    """A run as read back from its folder."""

    folder: Path
    record: dict[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame
    provenance: dict[str, Any]


def write_run(
    folder: Path,
    record: Mapping[str, Any],
    predictions: pd.DataFrame,
    history: pd.DataFrame,
    provenance: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a run's folder whole or not at all; `artifacts` (sha256 of the other files) is added to the record.

    Args:
        folder: ``results/<experiment>/<run>``.
        record: all of `RECORD_KEYS` but `artifacts`.
        predictions: one row per image; in the file, `image` is the file name alone where that tells images apart.
        history: one row per epoch; may be empty.
        provenance: what may differ between equal runs: `environment()` and timings.
        extra: file name to a function that writes that file (weights) and takes its path.
    """
    names = predictions["image"].str.rpartition("/")[2]
    if names.nunique() == predictions["image"].nunique():  # half the size of a study's records would be folders
        predictions = predictions.assign(image=names)
    with whole_folder(folder) as temporary:
        for name, write in (extra or {}).items():
            write(temporary / name)
        write_csv(temporary / PREDICTIONS, predictions)
        write_csv(temporary / "history.csv", history)
        artifacts = {path.name.removesuffix(".gz"): file_hash(path) for path in sorted(temporary.iterdir())}
        whole = {**record, "artifacts": artifacts}
        Record.model_validate(whole)
        write_json(temporary / "record.json", whole)
        write_json(temporary / "provenance.json", provenance)


def write_record(
    folder: Path, record: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], provenance: Mapping[str, Any]
) -> Path:
    """Write the record of an experiment that is not one run: `record.json`, `<table>.csv`, `provenance.json`.

    Args:
        folder: whole or not at all.
        record: everything that is the same for equal inputs.
        tables: by name; an index is written if it has a name.
        provenance: everything that may differ for equal inputs: `environment()` and timings.

    Returns:
        `folder`.
    """
    with whole_folder(folder) as temporary:
        for name, table in tables.items():
            write_csv(temporary / f"{name}.csv", table)
        write_json(temporary / "record.json", record)
        write_json(temporary / "provenance.json", provenance)
    return folder


def read_run(folder: Path) -> Run:
    """Read a run and check that its files are the ones the record names.

    Raises:
        HistotransferError: missing, unreadable, or changed since it was written.
    """
    folder = Path(folder)
    try:
        record, provenance = read_json(folder / "record.json"), read_json(folder / "provenance.json")
        record = OLD_RECORD | record
        validated(Record, record)
        artifacts = {name: record["artifacts"][name.removesuffix(".gz")] for name in (PREDICTIONS, "history.csv")}
    except (OSError, ValueError, KeyError, TypeError, HistotransferError) as error:
        raise HistotransferError(f"{folder}: not a run's folder ({type(error).__name__}: {error})") from error
    for name, expected in artifacts.items():
        digest = None
        with contextlib.suppress(OSError, EOFError, zlib.error):  # missing, or cannot be unpacked
            digest = file_hash(folder / name)
        if digest != expected:
            raise HistotransferError(f"{folder / name}: is not the file that record.json names; run it again")
    predictions = pd.read_csv(folder / PREDICTIONS, dtype=TEXT, keep_default_na=False)
    history = pd.read_csv(folder / "history.csv").rename(columns=OLD_COLUMNS)
    return Run(folder, record, history, predictions, provenance)


def image_paths(images: pd.Series, data_root: str | Path) -> pd.Series:
    """Where the images of a run's predictions are.

    Args:
        images: the predictions' `image`.
        data_root: folder of the data sets that the run used.

    Raises:
        HistotransferError: an image is not there.
    """
    root = Path(data_root).resolve()
    files = {image: root / image for image in images if (root / image).is_file()}  # also behind links
    if len(files) < images.nunique():
        files = {
            key: path for path in root.rglob("*") for key in (path.name, path.relative_to(root).as_posix())
        } | files
    if missing := set(images) - set(files):
        raise HistotransferError(f"{root}: {min(missing)} is not there; give the folder that the run was made from")
    return images.map(lambda image: str(files[image]))


def difference(first: Path, second: Path) -> tuple[list[str], bool]:
    """The differences between two runs, one per line, and whether the runs are equal apart from provenance.

    Raises:
        HistotransferError: a folder that is not a run's.
    """
    a, b = read_run(first), read_run(second)
    lines = [f"record.json: {line}" for line in _unlike(a.record, b.record)]
    for name, one, other in (("history.csv", a.history, b.history), ("predictions.csv", a.predictions, b.predictions)):
        lines += [f"{name}: {line}" for line in _unlike_tables(one, other)]
    provenance = [f"provenance.json: {line}" for line in _unlike(a.provenance, b.provenance)]
    return [*lines, *provenance], not lines


def _unlike(one: Any, other: Any, where: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if key in one and key in other:
                yield from _unlike(one[key], other[key], f"{where}.{key}" if where else key)
            else:
                yield f"{where}.{key}".lstrip(".") + f" is only in the {'first' if key in one else 'second'}"
    elif one != other:
        yield f"{where}: {one} | {other}"


def _unlike_tables(one: pd.DataFrame, other: pd.DataFrame) -> Iterator[str]:
    if list(one.columns) != list(other.columns) or len(one) != len(other):
        yield f"{len(one)} rows of {', '.join(one.columns)} | {len(other)} rows of {', '.join(other.columns)}"
        return
    for column in one:
        unlike = (one[column] != other[column]) & ~(one[column].isna() & other[column].isna())
        if unlike.any() and pd.api.types.is_float_dtype(one[column]):
            gap = (one[column] - other[column]).abs().max()
            yield f"{column}: {unlike.sum()} of {len(one)} rows, at most {gap:.3g} apart"
        elif unlike.any():
            yield f"{column}: {unlike.sum()} of {len(one)} rows"


def fingerprint(images: pd.Series, hashes: pd.Series) -> str:
    """sha256 over the sorted (relative name, content hash) pairs: it identifies the images that a run saw."""
    lines = sorted(f"{image} {digest}\n" for image, digest in zip(images, hashes, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def environment() -> dict[str, Any]:
    """Versions, hardware, and the state of the checkout."""
    import torch  # here: records are read without it

    return {
        "histotransfer": __version__,
        "git": _git_state(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
    }


def _git_state() -> str | None:
    """`<commit>` or `<commit>+changes`; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = _git("rev-parse", "HEAD", cwd=here)
        changed = _git("status", "--porcelain", "--untracked-files=no", cwd=here)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changed else "")


def _git(*arguments: str, cwd: Path) -> str:
    # Without locks: killed while it holds one, it would leave the checkout locked.
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()
