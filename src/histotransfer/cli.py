"""The command line: thin, and quick to start, since what computes is imported when a command runs."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer
from typer.core import TyperCommand

from histotransfer import __version__
from histotransfer.errors import DEBUG, HistotransferError, needs_extra, one_line_errors

if TYPE_CHECKING:
    from histotransfer.config import LadderConfig
    from histotransfer.study.execution import Outcome

app = typer.Typer(
    help="Breast-cancer histology with SE-DenseNet and transfer learning, re-runnable (arXiv 2404.09226).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error comes from.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"  # so that processes that a command starts know it too


def _group(name: str, about: str) -> typer.Typer:
    group = typer.Typer(help=about, no_args_is_help=True)
    app.add_typer(group, name=name)
    return group


data_app = _group("data", "Data sets: get, check and count them.")
weights_app = _group("weights", "ImageNet weights.")
book_app = _group("book", "The book.")
course_app = _group("course", "The book as a course.")
study_app = _group("study", "Experiments declared in study/*.toml.")
cache_app = _group("cache", "Stored outputs of frozen groups.")
runs_app = _group("runs", "Records of runs.")
experiment_app = _group("experiment", "Experiments of the book, each with a record (numbers only).")

SHIPPED = Path("src/histotransfer/deploy/models")
STUDY, RESULTS = Path("study"), Path("results")
ProfileName = Literal["phantom", "lite", "paper"]
ProfileOption = Annotated[ProfileName, typer.Option(help="phantom: synthetic tissue, minutes.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting; repeatable.")
]
DataOption = Annotated[str, typer.Option(help="Folder with the data sets; empty: phantom data are made.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Name every file that was passed over.")]
PatternOption = Annotated[
    str, typer.Option(help=r"For such a folder: how a path names its patient, e.g. '(?P<patient>P\d+)_\d+\.png'.")
]
OutOption = Annotated[Path, typer.Option(help="Folder for the records.")]
SchedulerOption = Annotated[str, typer.Option(help="Address of a Dask scheduler.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Dask workers on this machine; 0: one run after another.")]
ResultsOption = Annotated[Path, typer.Option(help="Folder of all experiments.")]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run of `ladder`, with its model.safetensors.")]
RunDataOption = Annotated[Path, typer.Option(help="Folder with the data sets that it was made from.")]


@data_app.command("summary")
def data_summary(
    root: Annotated[str, typer.Argument(help="Folder with the data sets; empty: phantom data are made.")] = "",
    verbose: VerboseOption = False,
) -> None:
    """Count images, patients and groups of each data set in a folder."""
    from histotransfer.datasets.summary import count_images, load_present
    from histotransfer.folders import PassedOver, said

    passed_over: list[PassedOver] = []
    for name, table in load_present(_root("phantom", root), passed_over).items():
        typer.echo(f"{name}\n{count_images(table, by='subtype').to_string()}\n")
    _echo_each(said(passed_over, verbose=verbose))


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
def data_verify(
    root: Annotated[Path, typer.Argument(help="Folder with the data sets.")], verbose: VerboseOption = False
) -> None:
    """Decode every image, compare with what was published, and name whatever is wrong (exit status 1)."""
    from histotransfer.datasets.verify import verify

    report = verify(root, progress=sys.stderr.isatty(), verbose=verbose)
    typer.echo(str(report))
    raise typer.Exit(0 if report.ok else 1)


@data_app.command("groups")
def data_groups(
    root: Annotated[Path, typer.Argument(help="Folder with lung_colon_image_set.")], verbose: VerboseOption = False
) -> None:
    """Find LC25000's duplicate groups by image and write lc25000_groups/<class>.csv."""
    from histotransfer.datasets.duplicates import write_groups
    from histotransfer.folders import PassedOver, said

    passed_over: list[PassedOver] = []
    _echo_each(write_groups(root, passed_over, progress=sys.stderr.isatty()))
    _echo_each(said(passed_over, verbose=verbose))


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
    out: OutOption,
    profile: ProfileOption = "phantom",
    data: DataOption = "",
    own: Annotated[
        Path | None,
        typer.Option(
            help="Your own images in place of BreakHis: a CSV (path,label,patient[,magnification,group]),"
            " or a folder with a folder for each class."
        ),
    ] = None,
    pattern: PatternOption = "",
    settings: SettingsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Train ImageNet -> LC25000 -> BreakHis once and write the records, beside both baselines.

    It ends with a report, which is also the model card beside the network: metrics with intervals by patient, of the
    network and of the baselines, and how much training moved it.

    With --own and without --data LC25000 is left out.
    """
    config = _config(profile, settings)
    root = None if own and not data else _root(profile, data)
    from histotransfer.deploy.release import write_card
    from histotransfer.study.runner import run_ladder

    progress = sys.stderr.isatty()
    folder = run_ladder(
        config, root, out, own=own, pattern=pattern, progress=progress, verbose=verbose, report=typer.echo
    )
    card = write_card(folder / "model.safetensors", report=typer.echo)
    typer.echo(f"record: {folder / 'record.json'}\nmodel card: {card}")


@experiment_app.command("leakage")
def leakage(
    out: OutOption, profile: ProfileOption = "phantom", data: DataOption = "", settings: SettingsOption = None
) -> None:
    """What a split by image is worth: one frozen probe, split by patient and by image."""
    config, root = _config(profile, settings), _root(profile, data)
    from histotransfer.experiments import leakage

    typer.echo(f"records: {leakage.run(config, root, out, progress=sys.stderr.isatty(), report=typer.echo)}")


@experiment_app.command("normalisation")
def normalisation(
    out: OutOption, profile: ProfileOption = "phantom", data: DataOption = "", settings: SettingsOption = None
) -> None:
    """What colour normalisation is worth: one frozen probe, split by patient, each normaliser in turn."""
    config, root = _config(profile, settings), _root(profile, data)
    from histotransfer.experiments import normalisation

    typer.echo(f"records: {normalisation.run(config, root, out, progress=sys.stderr.isatty(), report=typer.echo)}")


@experiment_app.command("complexity")
def complexity(
    part: Annotated[
        Literal["probes", "scratch", "times"],
        typer.Argument(help="Frozen early exits; the small net from scratch; milliseconds on this machine."),
    ],
    profile: ProfileOption = "phantom",
    data: DataOption = "",
    out: OutOption = Path("results/complexity"),
    settings: SettingsOption = None,
) -> None:
    """Accuracy against cost: early exits, picture sizes, precisions, a small net."""
    config, root = _config(profile, settings), Path(data) if part == "times" else _root(profile, data)
    from histotransfer.experiments import complexity

    typer.echo(f"records: {complexity.run(part, config, root, out, report=typer.echo)}")


@experiment_app.command("failures")
def failures(
    out: OutOption,
    weights: Annotated[str, typer.Option(help="ImageNet weights: a file; empty: cache, then network.")] = "",
) -> None:
    """The detectors of training failures, judged on synthetic histories and on failures provoked on phantom tissue."""
    from histotransfer.experiments import failures

    typer.echo(f"record: {failures.run(out, weights, report=typer.echo)}")


@experiment_app.command("explanations")
def explanations(run: RunArgument, data: RunDataOption, out: OutOption) -> None:
    """The Grad-CAM maps of a recorded run, checked on its test images, and the profiles of its SE gates."""
    from histotransfer.experiments import explanations

    typer.echo(f"record: {explanations.run(run, data, out)}")


@experiment_app.command("gates")
def gates(run: RunArgument, data: RunDataOption, out: OutOption = Path("results/gates")) -> None:
    """How far training moved the SE gates of a recorded run, on its validation images."""
    from histotransfer.experiments import gates

    typer.echo(f"record: {gates.run(run, data, out)}")


@experiment_app.command("patients")
def patients(
    data: Annotated[Path, typer.Option(help="Folder with BreaKHis_v1.")], out: OutOption = Path("results/data")
) -> None:
    """Counts and colours of each BreakHis patient, for chapter 01."""
    from histotransfer.experiments import patients

    typer.echo(f"record: {patients.run(data, out)}")


@experiment_app.command("splits")
def splits(
    data: Annotated[Path, typer.Option(help="Folder with BreakHis and LC25000.")],
    out: OutOption = Path("results/splits"),
) -> None:
    """Who is in which fold of the study, by name: lists of patients and of originals that others can use."""
    from histotransfer.experiments import splits

    typer.echo(f"record: {splits.run(data, out)}")


@experiment_app.command("adapt")
def adapt(
    data: Annotated[Path | None, typer.Option(help="Folder with UCSB_breast: adapt to UCSB, by slide.")] = None,
    own: Annotated[Path | None, typer.Option(help="Your own images in its place, as for `ladder`.")] = None,
    pattern: PatternOption = "",
    out: OutOption = Path("results/adapting"),
    weights: Annotated[
        Path | None, typer.Option(help="A model.safetensors of `ladder`; without it the network that ships.")
    ] = None,
    profile: Annotated[ProfileName, typer.Option(help="phantom: synthetic tissue, minutes.")] = "lite",
    draws: Annotated[int, typer.Option(min=1, max=1000, help="How often labelled patients are drawn.")] = 5,
    settings: SettingsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """What labelled patients of one's own are worth: a network before and after it learns from few of them, then more.

    Every patient is kept apart once and predicted by networks that learnt from others. Beside the network stand the
    bar: the larger class, and a probe on ImageNet's features.
    """
    from histotransfer.deploy.predict import SHIPPED
    from histotransfer.experiments import adapting

    folder = adapting.run(
        weights or SHIPPED, out, data_root=data, own=own, pattern=pattern, profile=profile,
        settings=_pairs(settings or []), draws=draws, progress=sys.stderr.isatty(), verbose=verbose, report=typer.echo,
    )  # fmt: skip
    typer.echo(f"records: {folder}")


@experiment_app.command("flagged")
def flagged(
    data: Annotated[Path, typer.Option(help="Folder with BreakHis, LC25000 and UCSB.")],
    out: OutOption = Path("results/flagged"),
    weights: Annotated[
        Path | None, typer.Option(help="A network of `study ship`; without it the one that ships.")
    ] = None,
) -> None:
    """Which share of pictures is flagged by the network that ships, kind by kind; its recipe is trained once a fold."""
    from histotransfer.deploy import flagged
    from histotransfer.deploy.predict import SHIPPED

    typer.echo(f"record: {flagged.run(weights or SHIPPED, data, out, report=typer.echo)}")


@experiment_app.command("duplicates")
def duplicates(
    data: Annotated[Path, typer.Option(help="Folder with LC25000 lung and its published group lists.")],
    out: OutOption = Path("results/duplicates"),
) -> None:
    """How well the duplicate groups that this project finds in LC25000 agree with the published ones."""
    from histotransfer.experiments import duplicates

    typer.echo(f"record: {duplicates.run(data, out, progress=sys.stderr.isatty())}")


# The names of these commands in version 0.1; they are removed in 0.3.
OLD: dict[str, Callable[..., None]] = {
    "leakage": leakage,
    "normalisation": normalisation,
    "failures": failures,
    "explain": explanations,
}
for _name, _command in OLD.items():
    app.command(_name, hidden=True)(_command)
study_app.command("complexity", hidden=True)(complexity)


@data_app.command("patients", hidden=True)
def data_patients(root: Annotated[Path, typer.Argument()], out: OutOption) -> None:
    """`experiment patients` as it was called in version 0.1."""
    patients(root, out)


@study_app.command("coverage", hidden=True)
def study_coverage(records: Path = Path("results"), out: Path = Path("results/coverage")) -> None:
    """`python -m research.coverage` as it was called in version 0.1."""
    if not Path("research/coverage.py").is_file():
        raise HistotransferError("study coverage: run it at the root of the repository, where research/ lies")
    command = [sys.executable, "-m", "research.coverage", "--records", str(records), "--out", str(out)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def predict(
    images: Annotated[
        list[str],
        typer.Argument(help="Pictures of breast tissue, H&E; folders of them; patterns; CSV files with a column path."),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="A model.safetensors of `ladder`, or an .xml of `export`; without it the one that ships."),
    ] = None,
    runtime: Annotated[Literal["torch", "openvino"], typer.Option(help="openvino is faster on a CPU.")] = "torch",
    out: Annotated[Path | None, typer.Option(help="File to write instead of printing.")] = None,
    form: Annotated[Literal["csv", "jsonl"], typer.Option("--format", help="A table, or JSON lines.")] = "csv",
    overlays: Annotated[Path | None, typer.Option(help="Folder for pictures of where the network looked.")] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="COLUMN|PATTERN",
            help="Add a row per patient: a column of the CSV files, or a regular expression with a group"
            " (?P<patient>...) that is found in a picture's path.",
        ),
    ] = "",
    views: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many flipped and recoloured views of a picture are averaged; else as the network's file says.",
        ),
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Predict pictures, one row each. Research only, not a medical device.

    Columns, which are also the keys of JSON lines:

    file       as given, or as found in a folder
    label      the most probable class
    p_CLASS    the probability of each class: p_benign, p_malignant
    set        the one class left at the coverage that the network states
               (90 %), or "cannot tell"; empty if it states none
    note       what is odd about the picture, joined by "; ": too little
               tissue, pen ink, one stain only, out of focus, unusual size,
               colours not normalised, unlike the training pictures (which
               an .xml, and weights of version 0.1, do not know)
    profile    of the training; a phantom network knows no tissue

    With --by three more, and after all pictures a row for each patient:

    patient    whose picture it is
    pictures   how many the patient has; empty in the row of a picture
    spread     standard deviation of their logits; empty likewise

    The file of a patient's row is the patient; its probabilities are those of the mean logit.

    The last line on stderr counts what was predicted, noted, refused and passed over. Exit status 2: a picture was
    refused.
    """
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise HistotransferError(f"{out}: cannot be written; give a file in a folder that exists")
    if out is not None and {".csv": "csv", ".jsonl": "jsonl"}.get(out.suffix.lower(), form) != form:
        raise HistotransferError(f"{out}: would hold {form}; give another ending, or --format")
    from tqdm import tqdm

    from histotransfer.deploy.patients import patients
    from histotransfer.deploy.predict import SHIPPED, Predictor, Trouble, find_pictures
    from histotransfer.deploy.rows import RowWriter
    from histotransfer.folders import PassedOver, said

    passed_over: list[PassedOver] = []
    patient_of = patients(by, images) if by else None
    files = list(find_pictures(images, passed_over))
    _refuse_overwriting(images, files, out, overlays)
    predictor = Predictor(weights or SHIPPED, runtime, views)
    refused = 0
    if overlays is not None:
        _make_folder(overlays)
    with _output(out) as file:
        rows = RowWriter(file, form, predictor.description, patient_of)
        shown = tqdm(
            predictor.predict(files, overlays), "pictures", len(files), unit="picture", leave=False,
            disable=not (sys.stderr.isatty() and (out or not sys.stdout.isatty())),
        )  # fmt: skip
        for result in shown:
            trouble = result.message if isinstance(result, Trouble) else rows.write(result)
            if trouble:
                refused += 1
                with tqdm.external_write_mode(sys.stderr):
                    typer.echo(trouble, err=True)
        rows.write_patients()
    summary, *names = said(passed_over, verbose=verbose) or ["passed over: 0"]
    for line in (*names, f"predicted: {rows.predicted}; noted: {rows.noted}; refused: {refused}; {summary}"):
        typer.echo(line, err=True)
    raise typer.Exit(2 if refused else 0)


@app.command()
def export(
    weights: Annotated[Path, typer.Argument(help="A model.safetensors written by `ladder`.")],
    to: Annotated[Literal["openvino", "onnx", "safetensors"], typer.Option(help="Format to write.")],
    out: Annotated[Path, typer.Option(help="Folder for the file and its model card; made if need be.")],
    int8: Annotated[bool, typer.Option("--int8", help="Eight-bit integers (openvino only); needs --data.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="The images that it was trained on: to calibrate, check and measure.")
    ] = None,
) -> None:
    """Write a trained network for other programs, its outputs checked, with a model card beside it."""
    _make_folder(out)
    from histotransfer.deploy.release import release

    _echo_each(release(weights, to, out, int8=int8, data=data, report=typer.echo))


@study_app.command("run")
def study_run(
    plan: Annotated[Path, typer.Argument(help="A plan, as study/primary.toml.")],
    data: DataOption = "",
    out: ResultsOption = RESULTS,
    scheduler: SchedulerOption = "",
    workers: WorkersOption = 0,
) -> None:
    """Do what is left of a plan: finished runs are skipped, broken ones continue; exit status 1 if one failed."""
    from histotransfer.study.plan import read_plan

    declared = read_plan(plan)
    root = _root(declared.profile, data)
    from histotransfer.study.execution import run_plan

    outcomes = run_plan(declared, root, out, scheduler=scheduler, workers=workers, report=typer.echo)
    _exit_with(outcomes)


def _exit_with(outcomes: Sequence["Outcome"]) -> None:
    """Show the runs that failed; exit status 1 if there are any."""
    failed = [outcome for outcome in outcomes if outcome.trouble]
    for outcome in failed:
        typer.echo(f"failed: {outcome.name}\n{outcome.trouble}", err=True)
    raise typer.Exit(1 if failed else 0)


@study_app.command("all")
def study_all(
    data: Annotated[str, typer.Option(help="Folder with BreakHis, LC25000, UCSB and the official folds.")],
    out: ResultsOption = RESULTS,
    study: Annotated[Path, typer.Option(help="Folder of the plans and of the rule.")] = STUDY,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    scheduler: SchedulerOption = "",
    workers: WorkersOption = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="One seed, 48 pixels, one epoch a stage: see that everything runs.")
    ] = False,
    costs_only: Annotated[
        bool, typer.Option("--costs", help="Say what is left and what it costs; run nothing.")
    ] = False,
) -> None:
    """The whole study: say what is left and what it costs, do it plan by plan, print the verdicts.

    Finished runs are skipped, interrupted ones go on. Exit status 1 if a run failed.
    """
    from histotransfer.study.whole import check_data, costs, read_plans

    plans, root = read_plans(study, {"device": device}, quick=quick), Path(data).resolve()
    images = check_data(plans, root)
    table = costs(plans, images, out)
    typer.echo(table.to_string())
    hours, gigabytes = table[["core_hours", "gigabytes"]].sum()
    typer.echo(
        f"BreakHis, {images:,} images: {table['left'].sum()} of {table['runs'].sum()} runs to do, about"
        f" {hours:.1f} hours of one core (less with --workers or a GPU), {gigabytes:.1f} GB on disk"
    )
    if costs_only:
        return
    from histotransfer.study.execution import run_plan

    outcomes = [
        outcome
        for plan in plans
        for outcome in run_plan(plan, root, out, scheduler=scheduler, workers=workers, report=typer.echo)
    ]
    from histotransfer.report.answers import answers
    from histotransfer.report.study import Study

    verdicts = answers(Study(study, out, quick=quick))
    for claim, row in verdicts.iterrows():
        typer.echo(
            f"{claim}  {row['verdict']}  {row['claim']}: {row['result']} ({row['n']}); first rule: {row['first']}"
        )
    _exit_with(outcomes)


@study_app.command("list")
def study_list(
    plan: Annotated[Path, typer.Argument(help="A plan.")],
    out: ResultsOption = RESULTS,
) -> None:
    """Every run of a plan, whether it is finished, and the budget of the rest."""
    from histotransfer.study.plan import is_finished, planned_runs, read_plan

    declared = read_plan(plan)
    left = 0
    for run in planned_runs(declared):
        done = is_finished(run, out / declared.experiment)
        left += not done
        typer.echo(f"{'finished' if done else 'to do   '}  {run.name}")
    typer.echo(f"{left} to do, about {left * declared.minutes / 60:.1f} hours of one core")


@study_app.command("ship")
def study_ship(
    data: DataOption = "",
    out: Annotated[Path, typer.Option(help="Folder for the network and its card.")] = SHIPPED,
) -> None:
    """Train the final recipe on every patient and write the network that `predict` uses, with its model card."""
    from histotransfer.deploy.shipping import ship
    from histotransfer.report.study import Study

    _echo_each(ship(Study(STUDY, RESULTS), _root("lite", data), out, report=typer.echo))


@cache_app.command("ls")
def cache_ls() -> None:
    """Every prefix in the cache: its key, megabytes, and when it was last written to."""
    from datetime import datetime

    from histotransfer.transfer.prefix_cache import cache_folder, list_cache

    typer.echo(str(cache_folder()))
    for kept in list_cache():
        when = datetime.fromtimestamp(kept.used).isoformat(" ", "minutes")
        typer.echo(f"{kept.prefix}  {kept.size / 1e6:8.1f} MB  {kept.segments:4d} segments  {when}")


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove every stored activation; they are computed anew when needed."""
    from histotransfer.transfer.prefix_cache import clear_cache

    typer.echo(f"{clear_cache() / 1e6:.1f} MB removed")


@runs_app.command("diff")
def runs_diff(
    first: Annotated[Path, typer.Argument(help="Folder of a run.")],
    second: Annotated[Path, typer.Argument(help="Folder of another.")],
) -> None:
    """What differs between two runs; exit status 1 if anything but provenance does."""
    from histotransfer.records import difference

    lines, equal = difference(first, second)
    _echo_each(lines)
    raise typer.Exit(0 if equal else 1)


@book_app.command("build")
def book_build(
    profile: ProfileOption = "phantom",
    data: DataOption = "",
    force: Annotated[bool, typer.Option(help="Execute every chapter anew.")] = False,
) -> None:
    """Execute every chapter with papermill and build the HTML into _build/html."""
    with needs_extra("book"):
        from histotransfer.book.build.site import build_book

    build_book(".", profile=profile, data_root=data, force=force)


class _TwoWords(TyperCommand):
    """A command whose option -p takes two words, as papermill's does; Typer repeats only options of one word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words, joined = iter(args), []
        for word in words:
            joined.append(word)
            if word == "-p":
                joined.append("=".join(itertools.islice(words, 2)))
        return super().parse_args(ctx, joined)


@book_app.command("run", cls=_TwoWords)
def book_run(
    chapter: Annotated[str, typer.Argument(help="A chapter: its name, its number, or a file.")],
    parameters: Annotated[
        list[str] | None, typer.Option("-p", metavar="NAME VALUE", help="Set a parameter; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Notebook to write, executed; whole or not at all.")] = None,
    list_parameters: Annotated[
        bool, typer.Option("--list-parameters", help="Say what the chapter takes, and run nothing.")
    ] = False,
) -> None:
    """Execute one chapter with papermill, with your own parameters."""
    with needs_extra("book"):
        from histotransfer.book.build.parameters import described_parameters, typed_parameters
        from histotransfer.book.build.sources import find_chapter

    source = find_chapter(chapter)
    if list_parameters:
        _echo_each(described_parameters(source))
        return
    if out is None:
        raise HistotransferError("--out: name the notebook to write")
    with needs_extra("book"):
        from histotransfer.book.build.execution import ChapterError, execute_chapter

    try:
        execute_chapter(source, out, typed_parameters(source, _pairs(parameters or [], "-p", "-p name value")))
    except ChapterError as error:
        typer.echo(error.cell, err=True)
        raise
    typer.echo(str(out))


@course_app.command("export")
def course_export(out: Annotated[Path, typer.Option(help="Folder to make; it must be new or empty.")]) -> None:
    """Write notebooks for students and instructors, slides, a syllabus and a marking rubric."""
    with needs_extra("course"):
        from histotransfer.book.course import export_course

    typer.echo(str(export_course(".", out, report=typer.echo)))


def _config(profile: ProfileName, settings: list[str] | None) -> "LadderConfig":
    from histotransfer.config import ladder_config

    return ladder_config(profile, _pairs(settings or []))


def _root(profile: ProfileName, data: str) -> Path:
    """The folder with the data sets; phantom data are generated if none is given."""
    from histotransfer.datasets.roots import resolve_root

    return resolve_root(profile, data)


def _echo_each(lines: Iterable[object]) -> None:
    for line in lines:
        typer.echo(str(line))


def _pairs(settings: list[str], option: str = "--set", form: str = "key=value") -> dict[str, str]:
    """`["key=value", ...]` as a mapping."""
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise HistotransferError(f"{option} {setting}: write it as {form}")
        pairs[key] = value
    return pairs


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HistotransferError(f"{path}: cannot be a folder ({error.strerror})") from error


def _refuse_overwriting(images: Sequence[str], files: Sequence[str], out: Path | None, overlays: Path | None) -> None:
    from histotransfer.folders import is_dir, resolved

    if out is not None and resolved(out) in {resolved(Path(name)) for name in (*images, *files)}:
        raise HistotransferError(f"{out}: is read here; give another file to write to")
    folders = [resolved(Path(name)) for name in images if is_dir(name)]
    if overlays is not None and any(overlays.resolve().is_relative_to(folder) for folder in folders):
        raise HistotransferError(f"{overlays}: lies in a folder that is read; the next run would predict its pictures")


@contextmanager
def _output(out: Path | None) -> Iterator[TextIO]:
    """A file that is written whole or not at all, or standard output."""
    if out is None:
        yield sys.stdout
        return
    from histotransfer.files import whole_file

    with whole_file(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        yield file


def main() -> None:
    """Entry point."""
    with one_line_errors():
        app()


if __name__ == "__main__":
    main()
