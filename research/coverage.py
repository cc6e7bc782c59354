"""How often intervals contain the truth, on simulated data sets with the real numbers of patients and images.

``python -m research.coverage`` writes `results/coverage`, which took 17 minutes of processor time. Scenarios:

- `estimated`: an image's logit is the sum of the mean of its class at its magnification, an effect of its strict
  patient, and its own noise; effects and noise are normal. Means and variances are those of the frozen probe's
  out-of-fold logits (one-way analysis of variance); a patient's effect is the same, in standard deviations, at all
  magnifications.
- `separated`: the class means are so far apart that AUROC is 0.95 at each magnification: near 1 intervals are hardest.
- `networks`: as `estimated`, but each fold has a network of its own, whose logits are shifted as a whole, so that the
  scores that a pooled AUROC compares are not on one scale. The truth is the mean of that AUROC, over networks too. The
  variance of shifts, `NETWORKS`, is more than any arm of the primary experiment shows (`network_variance`, recorded).
- `redrawn`: the patients of the record with their real logits, drawn with replacement; the record is the population.

The second arm correlates with the first as two methods of a record do; its classes are `gap` logits closer together. In
`redrawn` it is the probe that was split by image. The truth of the normal scenarios is computed on many data sets put
together. The methods were chosen on the data sets of one seed (`choice`); the published coverage of the chosen ones was
measured on those of another (`evaluation`).
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from histotransfer.errors import one_line_errors
from histotransfer.evaluation.clusters import Redrawable
from histotransfer.evaluation.intervals import LEVEL, all_metrics, limits_of, limits_of_gaps, mean_gaps
from histotransfer.evaluation.metrics import MEAN, Metrics, scopes
from histotransfer.files import file_hash, whole_folder, write_csv, write_json
from histotransfer.records import environment, read_run
from histotransfer.report.coverage import EVALUATION, ONE, TWO, USED
from histotransfer.report.study import Study
from histotransfer.report.tables import patients_of
from research.rivals import DRAWS, STUDENTISED, rivals
from research.simulation import (
    SEPARATION,
    DataSet,
    NormalArms,
    RedrawnArms,
    correlations,
    network_variance,
    separated,
    variance_components,
)

CHOICE, POPULATION, POWER = "choice", "population", "power"
SEEDS = {CHOICE: 1, EVALUATION: 2, POPULATION: 3, POWER: 4}
SETS = {CHOICE: 300, EVALUATION: 1000, POPULATION: 200, POWER: 500}
GAPS = (0.0, 1.0)
NETWORKS = 0.05
NETWORKS_OF = ("frozen-probe", "plain", "se", "plain-lung", "se-lung")  # arms of the primary experiment
COMPARED = ["auroc", "accuracy", "balanced_accuracy", "recognition_rate"]
COMPARED_AT = ("40", "100", "200")
SLOW = ("average_precision", "calibration_error")  # slow to redraw, so their differences are not measured
INPUTS = ("leakage/breakhis-by-patient", "leakage/breakhis-by-image", "spine/ladder", "spine/frozen-probe")

Truth = dict[tuple[str, str], Metrics]  # (kind, scope) to the metrics
Draw = tuple[float, ...]  # value, lower end, upper end, smallest difference


def generators_of(purpose: str) -> list[np.random.Generator]:
    """One generator per data set, so that each can be simulated again alone."""
    return [np.random.default_rng((SEEDS[purpose], index)) for index in range(SETS[purpose])]


def truth_of(arms: NormalArms | RedrawnArms) -> Truth:
    """Metrics of one arm, and of the difference of two, in the population."""
    values: defaultdict[tuple[str, str], list[Metrics]] = defaultdict(list)
    for ours, theirs in arms.population(generators_of(POPULATION)):
        for (name, rows, by), (_, others, _) in zip(scopes(ours), scopes(theirs), strict=True):
            values[ONE, name].append(all_metrics(rows, by))
            values[TWO, name].append(mean_gaps([(values[ONE, name][-1], all_metrics(others, by))]))
    return {key: _mean(each) for key, each in values.items()}


def _mean(values: Sequence[Metrics]) -> Metrics:
    """The mean of each metric; None where it is None in one of them."""
    return {
        metric: None if any(one[metric] is None for one in values) else float(np.mean([one[metric] for one in values]))
        for metric in values[0]
    }


def measure(
    sets: Iterable[DataSet], truth: Truth, kinds: Collection[str] = (ONE, TWO), *, compare: bool
) -> pd.DataFrame:
    """Compare the intervals of many data sets with the truth.

    Args:
        sets: the data sets.
        truth: their population's metrics.
        kinds: intervals of the first arm, of the difference, or of both.
        compare: whether to try the rival methods too, for the metrics and at the magnifications that are compared.

    Returns:
        One row per `kind`, `magnification`, `metric` and `method`: `truth`, `value` (mean), `coverage`, its Monte Carlo
        standard `error`, `below` and `above` (share of intervals that are entirely below or above the truth), `none`
        (share of data sets without an interval, which count nowhere else), mean `width`; of differences `smallest`
        (mean) and `shown` (share of intervals without 0).
    """
    draws: defaultdict[tuple[str, str, str, str], list[Draw]] = defaultdict(list)
    for seed, arms_of in enumerate(sets):
        for name, arms in arms_of.items():
            for kind, metric, method, draw in _intervals(arms, kinds, seed, compare and name in COMPARED_AT):
                draws[kind, name, metric, method].append(draw)
    return pd.DataFrame(
        {"kind": kind, "magnification": name, "metric": metric, "method": method}
        | _summary(np.array(drawn), truth[kind, name][metric], kind)
        for (kind, name, metric, method), drawn in draws.items()
    )


def _intervals(
    arms: tuple[Redrawable, Redrawable], kinds: Collection[str], seed: int, compare: bool
) -> Iterator[tuple[str, str, str, Draw]]:
    """Kind, metric, method and result of every interval of one data set at one scope."""
    ours, theirs = map(_values, arms)
    for kind in kinds:
        if kind == ONE:
            table = limits_of(ours, arms[0]).assign(smallest=np.nan)
        else:
            gaps = {metric: gap for metric, gap in mean_gaps([(ours, theirs)]).items() if metric not in SLOW}
            table = limits_of_gaps(gaps, [arms], draws=DRAWS, seed=seed)
        for metric, row in zip(table.index, table.to_numpy(), strict=True):
            yield kind, metric, USED[kind], tuple(row)
        if compare:
            for metric, methods in rivals(arms[: 1 if kind == ONE else 2], COMPARED, seed).items():
                for method, limits in methods.items():
                    yield kind, metric, method, (np.nan, *limits, np.nan)


def _values(arm: Redrawable) -> Metrics:
    whole = arm.values(np.ones((1, len(arm.classes))))
    return {metric: None if np.isnan(value[0]) else float(value[0]) for metric, value in whole.items()}


def _summary(draws: np.ndarray, truth: float | None, kind: str) -> dict[str, float | None]:
    """The columns of `measure` from ``(sets, 4)`` results, one `Draw` per data set."""
    there = ~np.isnan(draws[:, 1])
    if truth is None or not there.any():
        return {"truth": truth, "none": 1 - there.mean()}
    value, low, high, smallest = draws[there].T
    below, above = np.mean(high < truth), np.mean(low > truth)
    coverage = 1 - below - above
    return {
        "truth": truth,
        "value": value.mean(),
        "coverage": coverage,
        "error": np.sqrt(coverage * (1 - coverage) / len(low)),
        "below": below,
        "above": above,
        "none": 1 - there.mean(),
        "width": np.mean(high - low),
        "smallest": smallest.mean(),
        "shown": np.mean((low > 0) | (high < 0)) if kind == TWO else np.nan,
    }


def power(
    table: pd.DataFrame, components: pd.DataFrame, correlation: dict[str, float], wide: pd.DataFrame
) -> pd.DataFrame:
    """How often a difference as large as `smallest` is shown; it should be in 80 % of data sets.

    At each magnification that is compared, and for their mean, the second arm's gap is set so that the true difference
    in accuracy is about the mean `smallest` (in proportion to that with the wider of `GAPS`).

    Args:
        table: as for `NormalArms`.
        components: as for `NormalArms`.
        correlation: as for `NormalArms`.
        wide: result of `measure` with the wider gap.

    Returns:
        Columns `magnification`, `metric`, `gap`, `truth`, `smallest`, `shown` of the metrics that are compared.
    """
    measured = []
    for name, rows, _ in scopes(table):
        if name in (*COMPARED_AT, MEAN):
            at = (wide["kind"] == TWO) & (wide["magnification"] == name) & (wide["metric"] == "accuracy")
            gap = max(GAPS) * wide.loc[at, "smallest"].item() / wide.loc[at, "truth"].item()
            arms = NormalArms(rows, components, correlation, gap)
            sets = ({name: arms_of[name]} for arms_of in arms.sets(generators_of(POWER)))
            measured.append(measure(sets, truth_of(arms), [TWO], compare=False).assign(gap=gap))
    whole = pd.concat(measured)
    return whole.loc[whole["metric"].isin(COMPARED), ["magnification", "metric", "gap", "truth", "smallest", "shown"]]


def run_coverage(records: str | Path, out: str | Path, *, report: Callable[[str], None] = print) -> Path:
    """Measure every scenario; write `coverage.csv`, `methods.csv`, `power.csv`, `record.json` and `provenance.json`.

    Args:
        records: folder of the records; the runs of `INPUTS` are read.
        out: folder to write, whole or not at all.
        report: called with one line per scenario.

    Returns:
        `out`.

    Raises:
        HistotransferError: a run is missing or damaged.
    """
    started, around, out = time.process_time(), environment(), Path(out)
    runs = {name: read_run(Path(records) / name) for name in INPUTS}
    ours, theirs, *pair = (run.predictions for run in runs.values())
    components, correlation = variance_components(ours), correlations(*pair)
    scenarios: list[tuple[str, float, NormalArms | RedrawnArms]] = [
        (name, gap, NormalArms(ours, effects, correlation, gap, networks))
        for name, effects, networks in (
            ("estimated", components, 0.0),
            ("separated", separated(components), 0.0),
            ("networks", components, NETWORKS),
        )
        for gap in GAPS
    ]
    whole = _measured([*scenarios, ("redrawn", np.nan, RedrawnArms(ours, theirs))], report)
    used = whole[(whole["phase"] == EVALUATION) & (whole["method"] == whole["kind"].map(USED))]
    wide = used[(used["scenario"] == "estimated") & (used["gap"] == max(GAPS))]
    compared = whole[whole["metric"].isin(COMPARED) & whole["magnification"].isin(COMPARED_AT)]
    tables = {
        "coverage": used.drop(columns="phase").merge(_sizes(ours), on="magnification"),
        "methods": compared.drop(columns=["value", "smallest", "shown"]),
        "power": power(ours, components, correlation, wide),
    }
    with whole_folder(out) as temporary:
        for name, table in tables.items():
            write_csv(temporary / f"{name}.csv", table, floats="%.4g")
        record = {
            "inputs": {name: run.record["artifacts"]["predictions.csv"] for name, run in runs.items()},
            "components": components.reset_index().to_dict("records"),
            "correlation": correlation,
            "seeds": SEEDS,
            "sets": SETS,
            "level": LEVEL,
            "gaps": GAPS,
            "networks": {"simulated": NETWORKS, "measured": measured_networks(records)},
            "separation": SEPARATION,
            "draws": {"bootstrap": DRAWS, "studentised": STUDENTISED},
            "used": USED,
            "artifacts": {path.name: file_hash(path) for path in sorted(temporary.iterdir())},
        }
        write_json(temporary / "record.json", record)
        write_json(
            temporary / "provenance.json", {**around, "processor_seconds": round(time.process_time() - started, 1)}
        )
    return out


def measured_networks(records: str | Path) -> dict[str, float]:
    """`network_variance` of the primary experiment's arms, mean over seeds.

    Raises:
        HistotransferError: a run is missing or damaged.
    """
    study = Study("study", records)
    return {
        arm: float(
            np.mean([network_variance(one) for _, one in study.each("primary", arm).predictions.groupby("seed")])
        )
        for arm in NETWORKS_OF
    }


def _measured(
    scenarios: Iterable[tuple[str, float, NormalArms | RedrawnArms]], report: Callable[[str], None]
) -> pd.DataFrame:
    """`measure` for every scenario (name, gap, arms) in both phases, with the columns that tell them apart in front."""
    started, tables = time.process_time(), []
    for name, gap, arms in scenarios:
        truth = truth_of(arms)
        kinds = [TWO] if gap == max(GAPS) else [ONE, TWO]  # the first arm is the same with every gap
        for phase in (CHOICE, EVALUATION):
            table = measure(arms.sets(generators_of(phase)), truth, kinds, compare=True)
            tables.append(table.assign(phase=phase, scenario=name, gap=gap, sets=SETS[phase]))
        report(f"{name}, gap {gap}: {time.process_time() - started:.0f} s")
    whole = pd.concat(tables)
    whole["gap"] = whole["gap"].where(whole["kind"] == TWO)
    front = ["phase", "scenario", "gap", "sets", "kind", "magnification", "metric", "method"]
    return whole[front + [column for column in whole if column not in front]]


def _sizes(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {"magnification": name, "patients": patients_of(rows), "images": len(rows)} for name, rows, _ in scopes(table)
    )


def main(
    records: Annotated[Path, typer.Option(help="Folder of all experiments.")] = Path("results"),
    out: Annotated[Path, typer.Option(help="Folder for the record.")] = Path("results/coverage"),
) -> None:
    """Measure how often the intervals hold the truth, by simulation at the real numbers of patients; no data needed."""
    print(run_coverage(records, out) / "coverage.csv")


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
