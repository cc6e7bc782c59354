"""What people wait for, and what others make them wait: the page "What it costs", from the records of `benchmarks/`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from histotransfer.figures import growth, race, use_style
from histotransfer.figures.costs import in_seconds
from histotransfer.files import read_json, write_text

PEERS = ("plain", "torchstain", "scikit-learn", "stock", "scipy")


@dataclass(frozen=True)
class Wait:
    """One wait: the seconds of each side, and what was aimed at.

    Attributes:
        name: what one waits for.
        seconds: by side, ours first; the sides of others begin with one of `PEERS`.
        about: one or two sentences.
        goal: how many times as fast as the fastest peer is aimed at, or None.
        limit: the seconds that are aimed at, or None.
        against: how the names of the sides begin that ours is compared with.
    """

    name: str
    seconds: Mapping[str, float]
    about: str
    goal: float | None = None
    limit: float | None = None
    against: str | tuple[str, ...] = PEERS

    @property
    def ours(self) -> float:
        """Seconds of our side: the first that is not a peer's."""
        return next(seconds for side, seconds in self.seconds.items() if not is_peer(side))

    @property
    def peer(self) -> float | None:
        """Seconds of the fastest peer, if there is one."""
        return min((seconds for side, seconds in self.seconds.items() if side.startswith(self.against)), default=None)

    def row(self) -> str:
        """The wait as a line of a Markdown table."""
        times = f"{self.peer / self.ours:,.1f}" if self.peer else "–"
        aim = f"{self.goal:g} times" if self.goal else f"under {self.limit:g} s" if self.limit else "–"
        peer = in_seconds(self.peer) if self.peer else "–"
        return f"| {self.name} | {in_seconds(self.ours)} | {peer} | {times} | {aim} |"


def is_peer(side: str) -> bool:
    """Whether a side of a race is somebody else's program."""
    return side.startswith(PEERS)


def _predict(record: Mapping[str, Any]) -> list[Wait]:
    pictures, first, fields = record["pictures"], record["first_row"], record["fields"]
    shares = ", ".join(f"{side} {share:.0%}" for side, share in fields["share"].items())
    times = ", ".join(f"{side} {ratio:.1f}" for side, ratio in pictures["ratios"].items())
    small = min(seconds for side, seconds in pictures["median_seconds"].items() if side.startswith("plain, 112"))
    return [
        Wait(
            f"`predict`, {pictures['images']} pictures",
            _torch_first(pictures["median_seconds"]),
            "Whole commands, with the network that ships and its default settings, beside a plain script around"
            " torchvision's DenseNet-121. The network that ships sees 112 pixels; the peer of the table is that script"
            f" at 224 pixels, with its faster batch. At 112 pixels the script takes {small:.1f} s; ours averages four"
            f" views and writes notes. How many times as fast as the peer: {times}. On"
            f" {fields['images']:,} fields of 700 x 460 pixels the command reaches this share of the network's own"
            f" rate: {shares}. Notes, distance and sets take {record['checks']['share']['waited']:.1%} of the time.",
            goal=1.0,
            against="plain, 224 pixels",  # what such a script does; at fewer pixels it is another network
        ),
        Wait(
            "first row of `predict`",
            _torch_first(first["median_seconds"]),
            "One picture: what is timed is the start. With OpenVINO two seconds were aimed at.",
            limit=4.0,
        ),
    ]


def _torch_first(seconds: Mapping[str, float]) -> Mapping[str, float]:
    """What `predict` does by default, then the rest."""
    return {"torch": seconds["torch"], **seconds}


def _stain(record: Mapping[str, Any]) -> list[Wait]:
    return [
        Wait(
            f"{method.capitalize()}'s method, per field",
            record["timings"][f"{method}_2thread"]["median_seconds"],
            "One field of 700 x 460 pixels on two threads.",
        )
        for method in ("macenko", "reinhard", "vahadane")
    ]


def _unfreezing(record: Mapping[str, Any]) -> list[Wait]:
    ours, stock = record["seconds"]["ours"], record["seconds"]["stock"]
    about = f"{record['images']} images of {record['size']} pixels; filling the cache is part of it."
    spent = record["operations"]
    shares = {side: own["convolutions"] / sum(own.values()) for side, own in spent.items()}
    everything = (
        f"{record['train_images_of_fold_0']} images are trained on, with nothing frozen and nothing kept. Convolutions"
        f" take {shares['ours']:.0%} of the time of ours, and {shares['stock']:.0%} of that of fastai."
        " They are the same arithmetic on both sides: only the rest can be saved."
    )
    raced = (
        ("head and block 4, one fold", "single_run", about, 5),
        ("head, blocks 4 and 3, one fold", "single_run_with_block3", about, 2),
        ("an epoch of everything", "full_epoch", everything, 2),
    )
    return [Wait(name, {"ours": ours[of], "stock fastai": stock[of]}, text, goal) for name, of, text, goal in raced]


def _duplicates(record: Mapping[str, Any]) -> list[Wait]:
    made = record["made"]
    about = (
        f"{made['images']:,} simulated images of {made['originals']:,} originals, {made['peak_memory_mb']:,} MB;"
        f" of the pairs found {made['precision']:.1%} are right, of the true ones {made['recall']:.1%} are found."
    )
    return [Wait("`data groups`", {"ours": made["seconds"]}, about, limit=180)]


def _intervals(record: Mapping[str, Any]) -> list[Wait]:
    seconds, draws = record["seconds"], record["draws"]
    per_draw = seconds["scipy"] / draws["scipy"] * draws["ours"]
    about = (
        f"{draws['ours']:,} redraws of whole patients, {len(record['metrics'])} metrics. SciPy's bootstrap was given"
        f" {draws['scipy']} draws, and its time is scaled; on equal redraws bounds differ by at most"
        f" {record['largest_difference']:.0e}."
    )
    return [Wait("intervals of all metrics", {"ours": seconds["ours"], "scipy bootstrap": per_draw}, about, 5)]


def _book(record: Mapping[str, Any]) -> list[Wait]:
    builds = record["builds"]
    seconds = {f"after a change of {what}" if " " in what else what: b["seconds"] for what, b in builds.items()}
    ran = ", ".join(f"{what} {build['chapters']}" for what, build in builds.items())
    pages = {"pages alone": seconds.pop("after a change of a page")}
    return [Wait("`make book`, pages alone", pages | seconds, f"How many chapters ran: {ran}.", limit=30)]


def _cluster(record: Mapping[str, Any]) -> list[Wait]:
    measured = record["measured"]
    many = "; ".join(
        f"{row['workers']} workers {row['hours']:.1f} hours ({row['efficiency']:.0%} of their time is used)"
        for row in record["simulated"]
    )
    about = (
        f"{measured['runs']} equal runs; two workers are used to {measured['efficiency']:.0%}. Simulated, from the"
        f" {record['recorded_runs']} recorded runs and a gigabit network that all share: {many}. The longest run takes"
        f" {record['longest_minutes']:.0f} minutes, and no number of workers is faster than that."
    )
    seconds = measured["median_seconds"]
    order = ("two workers", "one worker", "two commands")
    return [Wait("a study on two workers", {side: seconds[side] for side in order}, about)]


RECORDS: Mapping[str, Callable[[Mapping[str, Any]], list[Wait]]] = {
    "predict": _predict,
    "book": _book,
    "unfreezing": _unfreezing,
    "duplicates": _duplicates,
    "intervals": _intervals,
    "stain": _stain,
    "cluster": _cluster,
}


def waits(folder: str | Path) -> tuple[list[Wait], list[str]]:
    """Every wait whose record is in the folder; and the races that have none of today's benchmark."""
    found, missing = [], []
    for name, read in RECORDS.items():
        path = Path(folder) / f"{name}.json"
        try:
            found += read(read_json(path))
        except (FileNotFoundError, KeyError, TypeError):  # none, or of an older benchmark that measured something else
            missing.append(name)
    return found, missing


def write_costs(folder: str | Path, target: Path) -> None:
    """Write what the page includes: ``target/costs.md``, and a picture per wait beside it."""
    use_style()
    target.mkdir(parents=True, exist_ok=True)
    found, missing = waits(folder)
    lines = ["| wait | ours | fastest peer | times | aim |", "|---|---|---|---|---|", *(wait.row() for wait in found)]
    text = ":::{table} What people wait for.\n:name: tab-costs\n\n" + "\n".join(lines) + "\n:::\n"
    if missing:
        files = ", ".join(f"`benchmarks/{name}.py`" for name in missing)
        text += f"\nNot raced yet with today's benchmarks (chapters may show an older race): {files}.\n"
    pictures = [(wait.name, wait.about, race(wait.name, wait.seconds, is_peer)) for wait in found]
    if (path := Path(folder) / "growth.json").is_file():
        record = read_json(path)
        powers = ", ".join(f"{step} {exponent:.2f}" for step, exponent in record["exponents"].items())
        about = f"Seconds go with a power of the number of images: {powers} (1 is linear)."
        pictures.append(("more images", about, growth(record["steps"])))
    for number, (name, about, figure) in enumerate(pictures):
        file = f"costs-{number}.svg"
        figure.savefig(target / file, metadata={"Date": None})
        plt.close(figure)
        alt = figure.alt  # type: ignore[attr-defined]  # set by figures.style.described
        title = name[0].upper() + name[1:]
        text += f"\n## {title}\n\n{about} {{numref}}`fig-costs-{number}`.\n\n"
        text += f":::{{figure}} {target.name}/{file}\n:name: fig-costs-{number}\n:alt: {alt}\n\n{title}.\n:::\n"
    write_text(target / "costs.md", text)
