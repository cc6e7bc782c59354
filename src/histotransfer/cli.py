"""The command line: thin, and light to start (everything that computes is imported when a command runs)."""

import csv
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from histotransfer.errors import HistotransferError

app = typer.Typer(
    help="Breast-cancer histology with SE-DenseNet and transfer learning, re-runnable (arXiv 2404.09226).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Data sets: get, check and count them.", no_args_is_help=True)
weights_app = typer.Typer(help="ImageNet weights.", no_args_is_help=True)
book_app = typer.Typer(help="The book.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")
app.add_typer(book_app, name="book")

ProfileOption = Annotated[Literal["phantom", "lite", "paper"], typer.Option(help="phantom: synthetic tissue, minutes.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting; repeatable.")
]
DataOption = Annotated[str, typer.Option(help="Folder with the data sets; empty: phantom data are made.")]


@data_app.command("summary")
def data_summary(
    root: Annotated[str, typer.Argument(help="Folder with the data sets; empty: phantom data are made.")] = "",
) -> None:
    """Count images, patients and groups of each data set in a folder."""
    from histotransfer.datasets.roots import resolve_root
    from histotransfer.datasets.summary import count_images, load_present

    for name, table in load_present(resolve_root("phantom", root)).items():
        typer.echo(f"{name}\n{count_images(table, by='subtype').to_string()}\n")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[Literal["breakhis", "folds", "lc25000", "ucsb"], typer.Argument(help="Which data set.")],
    to: Annotated[Path, typer.Option(help="Folder of the data sets; made if need be.")],
    archive: Annotated[
        Path | None, typer.Option(help="Archive or unpacked folder got by hand, instead of the network.")
    ] = None,
) -> None:
    """Download a data set, check it, and put it in place whole or not at all."""
    from histotransfer.datasets.fetch import fetch

    fetch(name, to, archive=archive, progress=sys.stderr.isatty(), report=typer.echo)


@data_app.command("verify")
def data_verify(root: Annotated[Path, typer.Argument(help="Folder with the data sets.")]) -> None:
    """Decode every image, compare with what was published, and name whatever is wrong (exit status 1)."""
    from histotransfer.datasets.verify import verify

    found = verify(root, progress=sys.stderr.isatty())
    typer.echo(str(found))
    raise typer.Exit(0 if found.ok else 1)


@data_app.command("patients")
def data_patients(
    root: Annotated[Path, typer.Argument(help="Folder with BreaKHis_v1.")],
    out: Annotated[Path, typer.Option(help="Folder for the record.")],
) -> None:
    """Record counts and colours of each BreakHis patient, for chapter 01 (numbers only, no pixels)."""
    from histotransfer.study.patients import write_patients

    typer.echo(str(write_patients(root, out) / "patients.csv"))


@data_app.command("groups")
def data_groups(root: Annotated[Path, typer.Argument(help="Folder with lung_colon_image_set.")]) -> None:
    """Find LC25000's duplicate groups by image and write lc25000_groups/<class>.csv."""
    from histotransfer.datasets.duplicates import write_groups

    for path in write_groups(root, progress=sys.stderr.isatty()):
        typer.echo(str(path))


@weights_app.command("fetch")
def weights_fetch(
    weights: Annotated[str, typer.Option(help="A file to check and use; empty: cache, then network.")] = "",
) -> None:
    """Make sure that ImageNet weights for DenseNet-121 are in the cache."""
    from histotransfer.models.weights import fetch_trunk

    trunk = fetch_trunk(weights)
    typer.echo(f"ImageNet weights: {trunk.source}\ncontent hash: {trunk.content_hash}")


@app.command()
def ladder(
    out: Annotated[Path, typer.Option(help="Folder for the records.")],
    profile: ProfileOption = "phantom",
    data: DataOption = "",
    own: Annotated[
        Path | None,
        typer.Option(
            help="Your own images in place of BreakHis: a CSV (path,label,patient[,magnification,group]),"
            " or a folder with a folder for each class."
        ),
    ] = None,
    pattern: Annotated[
        str, typer.Option(help=r"For such a folder: how a path names its patient, e.g. '(?P<patient>P\d+)_\d+\.png'.")
    ] = "",
    settings: SettingsOption = None,
) -> None:
    """Train ImageNet -> LC25000 -> BreakHis once and write the records, beside both baselines.

    With --own and without --data the LC25000 rung is left out.
    """
    from histotransfer.config import ladder_config
    from histotransfer.datasets.roots import resolve_root

    config = ladder_config(profile, _pairs(settings or []))
    root = None if own and not data else resolve_root(profile, data)
    from histotransfer.study.runner import run_ladder

    folder = run_ladder(config, root, out, own=own, pattern=pattern, progress=sys.stderr.isatty(), report=typer.echo)
    typer.echo(f"record: {folder / 'record.json'}")


@app.command()
def leakage(
    out: Annotated[Path, typer.Option(help="Folder for the records.")],
    profile: ProfileOption = "phantom",
    data: DataOption = "",
    settings: SettingsOption = None,
) -> None:
    """Measure what a split by image is worth: one frozen probe, split by patient and by image."""
    from histotransfer.config import ladder_config
    from histotransfer.datasets.roots import resolve_root

    config = ladder_config(profile, _pairs(settings or []))
    root = resolve_root(profile, data)
    from histotransfer.study.leakage import run_leakage

    run_leakage(config, root, out, progress=sys.stderr.isatty(), report=typer.echo)
    typer.echo(f"records: {out}")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures of breast tissue, H&E.")],
    weights: Annotated[Path, typer.Option(help="A model.safetensors written by `ladder`.")],
    out: Annotated[Path | None, typer.Option(help="CSV to write instead of printing.")] = None,
) -> None:
    """Predict pictures: file, label, probability, profile. Research only, not a medical device."""
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise HistotransferError(f"{out}: cannot be written; give a file in a folder that exists")
    from histotransfer.predict import Predictor, Trouble

    predictor = Predictor(weights)
    troubled = False
    rows = []
    for result in predictor.predict(images):
        if isinstance(result, Trouble):
            troubled = True
            typer.echo(result.message, err=True)
        else:
            rows.append((result.file, result.label, f"{result.probability:.4f}", predictor.profile))
    _write_csv([("file", "label", "probability", "profile"), *rows], out)
    raise typer.Exit(2 if troubled else 0)


@book_app.command("build")
def book_build(
    profile: ProfileOption = "phantom",
    data: DataOption = "",
    force: Annotated[bool, typer.Option(help="Execute every chapter anew.")] = False,
) -> None:
    """Execute every chapter with papermill and build the HTML into _build/html."""
    from histotransfer.bookbuild import build_book

    build_book(".", profile=profile, data_root=data, force=force)


def _pairs(settings: list[str]) -> dict[str, str]:
    """`["key=value", ...]` as a mapping."""
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise HistotransferError(f"--set {setting}: write it as key=value")
        pairs[key] = value
    return pairs


def _write_csv(rows: list[tuple], out: Path | None) -> None:
    """To a file, whole or not at all, or to the screen."""
    if out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    temporary = out.with_name(f".{out.name}.part")
    with temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    temporary.replace(out)


def main() -> None:
    """Entry point: a `HistotransferError` is one line and exit status 2."""
    try:
        app()
    except HistotransferError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
