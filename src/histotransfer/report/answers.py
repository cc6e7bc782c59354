"""The verdict table in words: for each claim the dose, one network, its interval, patients, and both verdicts.

`verdicts` computes all numbers from the records; this module puts them into the cells of a table.
"""

from collections.abc import Iterator, Sequence

import pandas as pd

from histotransfer.evaluation.comparisons import CONTRADICTED, judge
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.metrics import MEAN, metric_name
from histotransfer.paper import STATED_MB, STATED_PARAMETERS
from histotransfer.report.study import Study
from histotransfer.report.verdicts import EXPLORATORY, NOT_RUN, PARTS, PRIMARY, Judge

GAIN = (0.02, 0.06)  # "2 to 6 points": the magnitude of C4, said beside its verdict
JUDGED = {"C5": ("imagenet", "whole"), "C6": ("Macenko", "Vahadane", "flips and half turns")}  # what the paper does
COLUMNS = (
    "claim", "compared", "metric", "dose", "result", "average", "patient", "n", "smallest", "verdict", "first", "plan",
)  # fmt: skip
DRAWN = ("title", "power", "value", "low", "high", "unit", "margin")  # for `figures.claims`
UNITS = {"accuracy": "points", "auroc": "points", "epochs": "epochs", "log_loss": "nats"}
POINTS = ("accuracy", "points")  # units in hundredths
UNREACHABLE = "none detectable"


def answers(study: Study) -> pd.DataFrame:
    """One row per claim, or several where a claim has parts: index `id`, columns `COLUMNS` and `DRAWN`.

    `result` is that of one network, `average` that of the average of the seeds' logits, `patient` that of patients by
    their mean logit. `smallest` is the smallest true difference (for C1: distance from its threshold) that the design
    would have shown in four of five studies. `first` is the verdict of the first rule. `value`, `low` and `high` are
    how far the result lies beyond the claim, in `unit`, as is `margin`; `power` is `smallest` in words.
    """
    judging = Judge(study)
    rows = [*_accuracy(judging), *_differences(judging), *_convergence(judging), *_overfitting(judging), _size()]
    return _table(rows).sort_index(kind="stable")


def lines(judging: Judge, judged: pd.DataFrame) -> pd.DataFrame:
    """Rows that a method of `Judge` returned, in the form of `answers`."""
    return _table([_row(judging, row) for _, row in judged.iterrows()])


def _table(rows: Sequence[dict]) -> pd.DataFrame:
    table = pd.DataFrame(rows).set_index("id")
    table["title"] = table.index + " " + table["claim"]
    drawn = table.reindex(columns=DRAWN).astype({"power": object, "unit": object}).fillna({"power": "", "unit": ""})
    return pd.concat([table.reindex(columns=COLUMNS).astype(object).fillna("–"), drawn], axis=1)


def _accuracy(judging: Judge) -> Iterator[dict]:
    for _, row in judging.accuracy().iterrows():
        at = f", at {row['magnification']}x" if row["verdict"] != NOT_RUN else ""
        yield _row(judging, row, at) | {"metric": "accuracy, split by patient, colours as scanned"}


def _differences(judging: Judge) -> Iterator[dict]:
    for table in (judging.differences(PRIMARY, correct=True), judging.differences(EXPLORATORY)):
        for _, row in table.iterrows():
            over = f"at {row['magnification']}x" if row["magnification"] != MEAN else "mean over 40x, 100x, 200x"
            text = _row(judging, row) | {"metric": f"{metric_name(row['metric'])}, {over}, colours as scanned"}
            if least := judging.study.claims[row["id"]]["threshold"]:
                text["compared"] += f", at least {least:.2f}"
            if pd.notna(row.get("p_holm")):
                text["average"] += f", p = {row['p_holm']:.2g} after Holm"
            if row["id"].startswith("C4") and row["verdict"] != NOT_RUN and GAIN[0] <= row["value"] <= GAIN[1]:
                text["verdict"] += "; magnitude consistent"
            yield text


def _convergence(judging: Judge) -> Iterator[dict]:
    table = judging.convergence()
    if "arm" not in table:
        yield _row(judging, table.iloc[0]) | {"compared": "scratch minus transfer"}
        return
    for _, row in table[table["arm"].isin(JUDGED["C5"])].iterrows():
        images = f"{PARTS[row['part']]} images"
        metric = f"epochs until log-loss of {images} is {row['level']:.2f}, cut off at 20, colours as scanned"
        yield _row(judging, row, f", {images}") | {"metric": metric}


def _overfitting(judging: Judge) -> Iterator[dict]:
    table = judging.overfitting().set_index("note", drop=False)
    for _, row in table.loc[list(JUDGED["C6"])].iterrows():
        text = _row(judging, row, f": {row['note']}")
        text["metric"] = (
            "reduction of overfitting, test minus training log-loss in nats; patients: AUROC with it minus without"
        )
        if row["verdict"] != NOT_RUN:
            margin, ends = judging.rule["rule"]["margin"], (row["gain_low"], row["gain_high"])
            text["result"] += f" nats; AUROC on test images {number(row['gain'], *ends, level=margin)}"
            text["verdict"] += f"; AUROC on test images: {judge(*ends, 0.0, margin, given=not row['not_given'])}"
        yield text


def _size() -> dict:
    stated = 4 * STATED_PARAMETERS / 1e6  # bytes of float32
    return {
        "id": "C7",
        "claim": f"{STATED_PARAMETERS:,} parameters and {STATED_MB} MB",
        "compared": "its count in float32 with its megabytes",
        "metric": "arithmetic",
        "result": f"{stated:.1f} MB, not {STATED_MB}",
        "verdict": f"{CONTRADICTED}, as one float32 network",
        "first": CONTRADICTED,
        "plan": "none",
    }


def _row(judging: Judge, row: pd.Series, of: str = "") -> dict:
    """The cells that every row has; `of` says which part of the claim it is."""
    note = row.get("note")
    cells = {
        "id": row["id"],
        "claim": judging.study.claims[row["id"]]["claim"]
        + (f" ({note})" if note and not of.startswith(": ") else "")
        + of,
        "compared": row.get("compared", "–"),
        "verdict": row["verdict"],
        "first": row["first_verdict"],
        "plan": f"study/{row.get('experiment') or judging.study.claims[row['id']]['experiments'][0]}.toml",
    }
    if row["verdict"] == NOT_RUN:
        return cells
    if row["not_given"]:
        cells["verdict"] += f" ({row['not_given']})"
    smallest, threshold = row.get("smallest"), judging.study.claims[row["id"]].get("threshold", 0.0)
    unit = "accuracy" if row["id"] == "C1" else UNITS[row["metric"]]
    margin = judging.rule["rule"]["margin_epochs" if unit == "epochs" else "margin"]
    shown: dict = {
        "result": number(row["value"], row["low"], row["high"], level=threshold or margin),
        "dose": row["dose"],
        "n": f"{row['images']:.0f} images, {row['patients']} patients",
    }
    scale = 100 if unit in POINTS else 1
    shown |= {name: scale * (row[name] - threshold) for name in ("value", "low", "high")} | {"unit": unit}
    if threshold == 0:
        shown["margin"] = scale * margin
    if smallest is not None and pd.notna(smallest):
        shown |= _power(smallest, threshold if row["id"] == "C1" else None, unit)
    for name in ("average", "patient"):
        if name in row and pd.notna(row[name]):
            shown[name] = number(row[name], row[f"{name}_low"], row[f"{name}_high"])
    return cells | shown


def _power(smallest: float, level: float | None, unit: str) -> dict[str, str]:
    """How good a test was: the smallest true difference, or distance from a level of accuracy, that it would show."""
    if level is not None and smallest > max(level, 1 - level):
        return {"smallest": UNREACHABLE, "power": "too few patients to tell"}
    amount = f"{100 * smallest:.2g} points" if unit in POINTS else f"{smallest:.2g} {unit}"
    text = f"a true {'difference' if level is None else 'distance'} of {amount} would show"
    return {"smallest": f"{smallest:.2g}", "power": text.replace(" 1 points", " 1 point")}
