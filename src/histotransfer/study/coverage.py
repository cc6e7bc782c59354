"""How often the intervals hold the truth, on data sets that are made, at the real numbers of patients and images.

``histotransfer study coverage`` writes `results/coverage`. Scenarios:

- `estimated`: an image's logit is the mean of its class at its magnification, an effect of its strict patient, and noise
  of its own, all normal. Means and variances are those of the frozen probe's out-of-fold logits (one-way analysis
  of variance); a patient's effect is the same, in standard deviations, at all magnifications.
- `separated`: the class means lie so far apart that AUROC is 0.95 at each magnification: near 1 intervals are hardest.
- `redrawn`: the record's own patients with their real logits, drawn with replacement; the record is the population.

The second arm correlates with the first as two methods of a record do; its classes lie `gap` logits closer together. In
`redrawn` it is the probe that was split by image. What is true of the normal scenarios is taken from many
data sets as one. Methods were compared on the data sets of one seed (`choice`); what is published of the chosen one was
measured on those of another (`evaluation`).
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.clusters import Design, Scored, draw_counts, scored
from histotransfer.evaluation.intervals import LEVEL, all_metrics, limits_of, limits_of_gap
from histotransfer.evaluation.metrics import MALIGNANT, MEAN, Metrics, class_names, scopes
from histotransfer.evaluation.pooling import aligned
from histotransfer.study.records import environment, file_hash, read_run, run_folder, write_json
from histotransfer.study.rivals import DRAWS, STUDENTISED, Arm, rivals
from histotransfer.study.tables import patients_of

CHOICE, EVALUATION, POPULATION, POWER = "choice", "evaluation", "population", "power"
SEEDS = {CHOICE: 1, EVALUATION: 2, POPULATION: 3, POWER: 4}
SETS = {CHOICE: 300, EVALUATION: 1000, POPULATION: 200, POWER: 500}
GAPS = (0.0, 1.0)
SEPARATION = 0.95
COMPARED = ["auroc", "accuracy", "balanced_accuracy", "recognition_rate"]
COMPARED_AT = ("40", "100", "200")
ONE, TWO = "one arm", "difference"
CHOSEN = "chosen"
INPUTS = ("leakage/breakhis-by-patient", "leakage/breakhis-by-image", "spine/ladder", "spine/frozen-probe")

Arms = tuple[Arm, Arm]
DataSet = dict[str, Arms]  # scope to its two arms
Truth = dict[tuple[str, str], Metrics]  # (kind, scope) to the metrics


def margins(predictions: pd.DataFrame) -> np.ndarray:
    """``(N,)`` logit of malignant minus that of benign."""
    return (predictions[f"logit_{MALIGNANT}"] - predictions["logit_benign"]).to_numpy()


def variance_components(predictions: pd.DataFrame) -> pd.DataFrame:
    """Mean of the logits and their variance between and within strict patients, by one-way analysis of variance.

    Returns:
        Indexed by `magnification` and `truth`: `mean`, `between` (at least 0), `within`, `intraclass` (correlation),
        `images`, `patients`. Source: Searle, Casella and McCulloch 1992, section 3.6.
    """
    rows = {}
    for key, own in predictions.assign(margin=margins(predictions)).groupby(["magnification", "truth"]):
        sizes, means = own.groupby("group")["margin"].size(), own.groupby("group")["margin"].mean()
        groups, images = len(sizes), len(own)
        within = ((own["margin"] - own["group"].map(means)) ** 2).sum() / (images - groups)
        outer = (sizes * (means - own["margin"].mean()) ** 2).sum() / (groups - 1)
        between = max((outer - within) * (groups - 1) / (images - (sizes**2).sum() / images), 0.0)
        rows[key] = {
            "mean": own["margin"].mean(),
            "between": between,
            "within": within,
            "intraclass": between / (between + within),
            "images": images,
            "patients": groups,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["magnification", "truth"])


def correlations(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, float]:
    """Correlation of two arms' logits `between` patients (their means) and `within`, inside class and magnification."""
    ours, theirs = aligned(ours, theirs)
    both = pd.DataFrame({"ours": margins(ours), "theirs": margins(theirs)})
    keys = [ours[name].to_numpy() for name in ("magnification", "truth", "group")]
    means = both.groupby(keys).mean()
    centred = means - means.groupby(level=[0, 1]).transform("mean")
    left = both - both.groupby(keys).transform("mean")
    return {"between": float(centred.corr().iloc[0, 1]), "within": float(left.corr().iloc[0, 1])}


def separated(components: pd.DataFrame) -> pd.DataFrame:
    """The same variances, the means around 0 so that AUROC is `SEPARATION` at each magnification."""
    spread = np.sqrt(components[["between", "within"]].sum(axis=1).groupby("magnification").transform("sum"))
    sign = np.where(components.index.get_level_values("truth") == MALIGNANT, 1, -1)
    return components.assign(mean=sign * spread * norm.ppf(SEPARATION) / 2)


class NormalArms:
    """Two arms whose patients have normal effects."""

    def __init__(self, table: pd.DataFrame, components: pd.DataFrame, correlation: dict[str, float], gap: float):
        """Lay out the data sets.

        Args:
            table: predictions, for who the images are of.
            components: as `variance_components`.
            correlation: as `correlations`.
            gap: how much closer together, in logits, the second arm's classes lie.
        """
        own = components.loc[pd.MultiIndex.from_frame(table[["magnification", "truth"]])]
        sign = np.where(table["truth"] == MALIGNANT, 1, -1)
        self.table, self.correlation = table.reset_index(drop=True), correlation
        self.means = [own["mean"].to_numpy() - sign * closer / 2 for closer in (0, gap)]
        self.between, self.within = np.sqrt(own["between"].to_numpy()), np.sqrt(own["within"].to_numpy())
        self.group = pd.factorize(table["group"])[0]

    def logits(self, generator: np.random.Generator) -> list[np.ndarray]:
        """``(N,)`` logits of malignant against benign, of both arms, in one data set."""
        patients = _pair(generator, self.group.max() + 1, self.correlation["between"])
        images = _pair(generator, len(self.group), self.correlation["within"])
        return [
            mean + self.between * patient[self.group] + self.within * image
            for mean, patient, image in zip(self.means, patients, images, strict=True)
        ]

    def sets(self, generators: Iterable[np.random.Generator]) -> Iterator[DataSet]:
        """One data set a generator."""
        designs = {name: (rows.index, Design(rows, by)) for name, rows, by in scopes(self.table)}
        signs = [1 if name == MALIGNANT else -1 for name in class_names(self.table)]
        for generator in generators:
            arms = [expit(np.outer(logits, signs)) for logits in self.logits(generator)]
            yield {name: tuple(design.scored(arm[rows]) for arm in arms) for name, (rows, design) in designs.items()}

    def truth(self) -> Truth:
        """The metrics of many data sets as one."""
        names = ("image", "patient", "group")
        copies = [self.table.assign(**{n: f"{i} " + self.table[n] for n in names}) for i in range(SETS[POPULATION])]
        draws = [self.logits(generator) for generator in generators_of(POPULATION)]
        arms = (
            pd.concat(
                [
                    copy.assign(logit_benign=0.0, logit_malignant=draw[arm])
                    for copy, draw in zip(copies, draws, strict=True)
                ],
                ignore_index=True,
            )
            for arm in range(2)
        )
        return truth_of(*arms)


def _pair(generator: np.random.Generator, size: int, correlation: float) -> list[np.ndarray]:
    shared, *own = generator.standard_normal((3, size))
    return [np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * one for one in own]


class RedrawnArms:
    """Two arms' real logits; their patients are drawn with replacement, within each class."""

    def __init__(self, ours: pd.DataFrame, theirs: pd.DataFrame):
        """Score once.

        Args:
            ours: predictions.
            theirs: of the same images.
        """
        self.tables = aligned(ours, theirs)
        self.scopes = {
            name: (scored(rows, by), scored(self.tables[1].loc[rows.index], by))
            for name, rows, by in scopes(self.tables[0].reset_index(drop=True))
        }

    def sets(self, generators: Iterable[np.random.Generator]) -> Iterator[DataSet]:
        """One data set a generator."""
        for generator in generators:
            seed = int(generator.integers(2**32))
            yield {name: tuple(Redrawn(arm, seed) for arm in arms) for name, arms in self.scopes.items()}

    def truth(self) -> Truth:
        """The metrics of the tables."""
        return truth_of(*self.tables)


class Redrawn:
    """A scored design with its clusters drawn anew, each copy a cluster of its own."""

    def __init__(self, arm: Scored, seed: int):
        (counts,) = draw_counts(arm.classes, 1, seed)
        self.arm, self.drawn = arm, np.repeat(np.arange(len(counts)), counts)
        self.classes, self.copies = arm.classes[self.drawn], np.eye(len(counts))[self.drawn]

    def values(self, counts: np.ndarray, metrics: list[str] | None = None) -> dict[str, np.ndarray]:
        """As `Scored.values`."""
        return self.arm.values(counts @ self.copies, metrics)

    def shares(self, metric: str) -> np.ndarray:
        """As `Scored.shares`, to a factor a class."""
        return self.arm.shares(metric)[self.drawn]


def truth_of(ours: pd.DataFrame, theirs: pd.DataFrame) -> Truth:
    """``{(kind, scope): metrics}`` of one arm, and of the difference of two."""
    found = {}
    for (name, rows, by), (_, others, _) in zip(scopes(ours), scopes(theirs), strict=True):
        one, other = all_metrics(rows, by), all_metrics(others, by)
        found[ONE, name], found[TWO, name] = one, {metric: one[metric] - other[metric] for metric in one}
    return found


def generators_of(purpose: str) -> Iterator[np.random.Generator]:
    """One generator a data set, so that each can be made again alone."""
    for index in range(SETS[purpose]):
        yield np.random.default_rng((SEEDS[purpose], index))


def measure(sets: Iterable[DataSet], truth: Truth, *, compare: bool) -> pd.DataFrame:
    """How the intervals of many data sets lie to the truth.

    Args:
        sets: the data sets.
        truth: what is true of them.
        compare: whether the rival methods too, in the metrics and at the magnifications that are compared.

    Returns:
        One row a `kind`, `magnification`, `metric` and `method`: `truth`, `value` (mean), `coverage`, its Monte Carlo
        standard `error`, `below` and `above` (share of intervals that lie wholly below or above the truth), `none`
        (share of data sets without an interval, not counted elsewhere), mean `width`; of differences `smallest` (mean)
        and `shown` (share of intervals without 0).
    """
    found = defaultdict(list)
    for seed, arms_of in enumerate(sets):
        for name, arms in arms_of.items():
            whole = [_values(arm) for arm in arms]
            tables = {ONE: limits_of(whole[0], arms[0]), TWO: limits_of_gap(*whole, *arms)}
            for kind, table in tables.items():
                for metric, row in zip(table.index, table.to_numpy(), strict=True):
                    found[kind, name, metric, CHOSEN].append(row[:4] if kind == TWO else (*row, np.nan))
            if compare and name in COMPARED_AT:
                for kind, chosen in ((ONE, arms[:1]), (TWO, arms)):
                    for metric, methods in rivals(chosen, COMPARED, seed).items():
                        value = tables[kind].loc[metric, "value"]
                        for method, limits in methods.items():
                            found[kind, name, metric, method].append((value, *limits, np.nan))
    rows = []
    for (kind, name, metric, method), draws in found.items():
        value, low, high, smallest = np.array(draws, dtype=float).T
        true, there = truth[kind, name][metric], ~np.isnan(low)
        low, high, number = low[there], high[there], int(there.sum())
        coverage = np.mean((low <= true) & (true <= high)) if number else np.nan
        rows.append(
            {
                "kind": kind, "magnification": name, "metric": metric, "method": method,
                "truth": true, "value": np.nanmean(value), "coverage": coverage,
                "error": np.sqrt(coverage * (1 - coverage) / max(number, 1)),
                "below": np.mean(high < true), "above": np.mean(low > true), "none": 1 - there.mean(),
                "width": np.mean(high - low), "smallest": smallest[there].mean(),
                "shown": np.mean((low > 0) | (high < 0)) if kind == TWO else np.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _values(arm: Arm) -> Metrics:
    whole = arm.values(np.ones((1, len(arm.classes))))
    return {metric: None if np.isnan(value[0]) else float(value[0]) for metric, value in whole.items()}


def power(
    table: pd.DataFrame, components: pd.DataFrame, correlation: dict[str, float], measured: pd.DataFrame
) -> pd.DataFrame:
    """How often a difference as large as `smallest` is shown: the 80 % that it promises, or not.

    At each magnification that is compared, and for their mean, the second arm's gap is set so that the true difference
    in accuracy is about the mean `smallest` of the wider of `GAPS` (by proportion).

    Args:
        table: as for `NormalArms`.
        components: as for `NormalArms`.
        correlation: as for `NormalArms`.
        measured: as `measure` found with that gap.

    Returns:
        Rows of `measure` for the metrics that are compared, with the `gap`.
    """
    found = []
    for name, rows, _ in scopes(table):
        if name not in (*COMPARED_AT, MEAN):
            continue
        wide = measured.query("kind == @TWO and magnification == @name and metric == 'accuracy'").iloc[0]
        gap = max(GAPS) * wide["smallest"] / wide["truth"]
        arms = NormalArms(rows, components, correlation, gap)
        sets = ({name: arms_of[name]} for arms_of in arms.sets(generators_of(POWER)))
        found.append(
            measure(sets, arms.truth(), compare=False).query("kind == @TWO and metric in @COMPARED").assign(gap=gap)
        )
    return pd.concat(found)[["magnification", "metric", "gap", "truth", "smallest", "shown"]]


def run_coverage(records: str | Path, out: str | Path, *, report: Callable[[str], None] = print) -> Path:
    """Measure, and write `coverage.csv`, `methods.csv`, `power.csv`, `record.json` and `provenance.json`.

    Args:
        records: folder of the records; the runs of `INPUTS` are read.
        out: folder to write, whole or not at all.
        report: called with one line a scenario.

    Returns:
        `out`.

    Raises:
        HistotransferError: a run is missing or damaged.
    """
    started, around, out = time.perf_counter(), environment(), Path(out)
    runs = {name: read_run(Path(records) / name) for name in INPUTS}
    ours, theirs, *pair = (run.predictions for run in runs.values())
    components, correlation = variance_components(ours), correlations(*pair)
    scenarios = [
        (name, gap, NormalArms(ours, own, correlation, gap))
        for name, own in (("estimated", components), ("separated", separated(components)))
        for gap in GAPS
    ]
    found = []
    for name, gap, arms in [*scenarios, ("redrawn", None, RedrawnArms(ours, theirs))]:
        truth = arms.truth()
        for phase in (CHOICE, EVALUATION):
            measured = measure(arms.sets(generators_of(phase)), truth, compare=True)
            found.append(measured.assign(phase=phase, scenario=name, gap=gap, sets=SETS[phase]))
        report(f"{name}, gap {gap}: {time.perf_counter() - started:.0f} s")
    whole = pd.concat(found).merge(_sizes(ours), on="magnification")
    front = ["phase", "scenario", "gap", "kind", "magnification", "patients", "images", "metric", "method"]
    whole = whole[front + [column for column in whole if column not in front]]
    compared = whole[whole["metric"].isin(COMPARED) & whole["magnification"].isin(COMPARED_AT)]
    chosen = whole.query("phase == @EVALUATION and method == @CHOSEN").drop(columns=["phase", "method"])
    widest = chosen.query("scenario == 'estimated' and gap == @GAPS[-1]")
    tables = {
        "coverage": chosen,
        "methods": compared.drop(columns=["smallest", "shown", "none", "patients", "images"]),
        "power": power(ours, components, correlation, widest),
    }
    with run_folder(out) as temporary:
        for name, table in tables.items():
            table.to_csv(temporary / f"{name}.csv", index=False, float_format="%.4g", lineterminator="\n")
        record = {
            "inputs": {name: run.record["artifacts"]["predictions.csv"] for name, run in runs.items()},
            "components": components.reset_index().to_dict("records"),
            "correlation": correlation,
            "seeds": SEEDS,
            "sets": SETS,
            "level": LEVEL,
            "gaps": GAPS,
            "separation": SEPARATION,
            "draws": {"bootstrap": DRAWS, "studentised": STUDENTISED},
            "artifacts": {path.name: file_hash(path) for path in sorted(temporary.iterdir())},
        }
        write_json(temporary / "record.json", record)
        write_json(temporary / "provenance.json", {**around, "seconds": round(time.perf_counter() - started, 1)})
    return out


def _sizes(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {"magnification": name, "patients": patients_of(rows), "images": len(rows)} for name, rows, _ in scopes(table)
    )


def with_coverage(table: pd.DataFrame, folder: str | Path = "results/coverage") -> pd.DataFrame:
    """A table of `study.tables` with how often such intervals held the truth, as far as that was measured.

    Args:
        table: as `with_intervals` or `gap` makes it.
        folder: the record.

    Returns:
        The table with `coverage`: the lowest over the scenarios, for the same magnification, numbers of patients and
        metric; NaN where these were not measured.

    Raises:
        HistotransferError: no such record.
    """
    path = Path(folder) / "coverage.csv"
    if not path.is_file():
        raise HistotransferError(f"{path}: no record of coverage; `histotransfer study coverage` writes it")
    kind, keys = TWO if "smallest" in table else ONE, ["magnification", "patients", "metric"]
    measured = pd.read_csv(path, dtype={"magnification": str}).query("kind == @kind")
    return table.merge(measured.groupby(keys, as_index=False)["coverage"].min(), on=keys, how="left")
