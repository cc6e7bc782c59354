"""Instruments of the pages: what a reader moves, and a static view for paper, Jupyter and browsers without JavaScript.

Each function returns HTML that holds its numbers and its static view; `book/_static/instruments` has the JavaScript, a
file for each, by the name in `data-instrument`. A page loads it only if the instrument is there (`extensions.markup`).
"""

import base64
import html
import io
import json
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from PIL import Image
from scipy.stats import binomtest

from histotransfer.datasets.phantom import Phantom
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.metrics import MALIGNANT, THRESHOLD, patient_table, scores

DEEPEST = 255  # amounts are sent in whole steps of their largest
SHOWN = (0.1, THRESHOLD, 0.95)  # thresholds of the static view
BY_PATIENT, BY_IMAGE = "by patient", "by image"


def stain_sliders(field: Phantom) -> HTML:
    """Sliders for the amounts of haematoxylin and eosin in a phantom, drawn by the law of Beer and Lambert.

    The static view shows the field as it is, and with either stain alone.

    Args:
        field: its truth is what is drawn.
    """
    highest = field.concentrations.max(axis=(0, 1))
    steps = np.rint(field.concentrations / highest * DEEPEST).clip(0, DEEPEST).astype(np.uint8)
    side = field.image.shape[1]
    numbers = {
        "side": side,
        "highest": highest.tolist(),
        "steps": [base64.b64encode(np.ascontiguousarray(steps[..., stain]).tobytes()).decode() for stain in (0, 1)],
        "stains": field.stain_matrix.tolist(),
        "light": np.broadcast_to(field.brightness, 3).tolist(),
    }
    views = {"both stains": (1, 1), "haematoxylin alone": (1, 0), "eosin alone": (0, 1)}
    pictures = [_picture(stained(field, amounts), f"The field with {name}.") for name, amounts in views.items()]
    return _instrument("stains", numbers, "".join(pictures))


def stained(field: Phantom, amounts: tuple[float, float]) -> np.ndarray:
    """``(H, W, 3)`` uint8: a phantom with its haematoxylin and its eosin multiplied."""
    density = (field.concentrations * np.array(amounts)) @ field.stain_matrix
    return (field.brightness * np.exp(-density)).round().clip(0, 255).astype(np.uint8)


def threshold_slider(predictions: pd.DataFrame) -> HTML:
    """A slider for the threshold over the scores of patients: how many are found, how many are called ill in error.

    The static view is a table of three thresholds.

    Args:
        predictions: of images, benign and malignant, out of fold. A patient's score is that of the mean logit.
    """
    patients = patient_table(predictions)
    malignant = (patients["truth"] == MALIGNANT).to_numpy()
    ill, well = (_shares(int(group.sum())) for group in (malignant, ~malignant))
    numbers = {
        "scores": [round(float(one), 4) for one in scores(patients)],
        "malignant": malignant.tolist(),
        "threshold": THRESHOLD,
        "sensitivity": ill,
        "specificity": well,
    }
    rows = []
    for at in SHOWN:
        found = np.array(numbers["scores"]) >= at
        rows.append([f"{at:.2f}", ill[(found & malignant).sum()], well[(~found & ~malignant).sum()]])
    return _instrument("threshold", numbers, _table(["threshold", "sensitivity", "specificity"], rows))


def bet_on_leakage(table: pd.DataFrame, gap: pd.DataFrame, metric: str = "auroc") -> HTML:
    """A bet on what a split by image is worth, then a switch between both splits on the figure.

    The static view is a table of both.

    Args:
        table: long, as `report.tables.with_intervals`: the runs `by patient` and `by image`.
        gap: long, as `report.tables.gap` of these two.
        metric: a column of both.
    """
    own = table[table["metric"] == metric]
    splits = {split: own[own["run"] == split] for split in (BY_PATIENT, BY_IMAGE)}
    order = list(splits[BY_PATIENT]["magnification"])
    difference = gap[(gap["metric"] == metric) & (gap["magnification"] == "mean")].iloc[0]
    shown = {
        split: [[row.value, row.low, row.high] for row in rows.set_index("magnification").loc[order].itertuples()]
        for split, rows in splits.items()
    }
    numbers = {
        "magnifications": order,
        "splits": shown,
        "gap": [difference["value"], difference["low"], difference["high"]],
    }
    rows = [[at, *(number(*rows[i]) for rows in shown.values())] for i, at in enumerate(order)]
    return _instrument("bet", numbers, _table(["magnification", *shown], rows))


def _instrument(name: str, numbers: dict[str, Any], static: str) -> HTML:
    text = json.dumps(numbers, allow_nan=False).replace("</", "<\\/")
    return HTML(
        f'<div class="instrument" data-instrument="{name}"><div class="instrument-static">{static}</div>'
        f'<script type="application/json">{text}</script></div>'
    )


def _picture(pixels: np.ndarray, alt: str) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}" alt="{html.escape(alt)}">'


def _shares(of: int) -> list[str]:
    """What 0 to `of` patients of `of` are, each with the exact 95 % interval of a share (Clopper and Pearson 1934)."""
    ends = [binomtest(count, of).proportion_ci() for count in range(of + 1)]
    return [f"{number(count / of, *ends[count])} ({count} of {of} patients)" for count in range(of + 1)]


def _table(head: list[str], rows: list[list[str]]) -> str:
    def row(tag: str, cells: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row("td", cells) for cells in rows)
    return f'<table class="dataframe"><thead>{row("th", head)}</thead><tbody>{body}</tbody></table>'
