import numpy as np
import pandas as pd
import pytest

from histotransfer import figures
from histotransfer.figures.claims import REACH, UNITS, VERDICTS


@pytest.fixture
def table():
    rows = [
        ("C1 accuracy", "undecided", "24 points from 84% would show", -14.0, -32.0, 0.2, "points"),
        ("C2 gates", "no effect worth having", "3 points would show", -0.8, -2.6, 1.8, "points"),
        ("C3b", "not run yet", "", np.nan, np.nan, np.nan, ""),
        ("C5 faster", "supported here", "", 3.0, 1.0, 20.0, "epochs"),
        ("C6 colours", "not tested as run (colours)", "", 0.3, -0.2, 0.9, "nats"),
        ("C6", "no effect worth having; test AUROC no effect worth having", "0.07 nats would show", 0, -0.1, 0, "nats"),
        ("C7 size", "contradicted here, as one float32 network", "", np.nan, np.nan, np.nan, ""),
    ]
    return pd.DataFrame(rows, columns=["title", "verdict", "power", "value", "low", "high", "unit"])


def test_each_unit_has_a_panel_and_each_row_its_interval_in_the_colour_of_its_verdict(table):
    figure = figures.claims(table)
    assert [axis.get_xlabel() for axis in figure.axes] == [*UNITS.values(), ""]
    points, epochs, nats, nothing = figure.axes
    spans = [segments.get_segments()[0][:, 0].tolist() for segments in points.collections]
    assert spans == [[-REACH["points"], 0.2], [-2.6, 1.8]]
    colours = [tuple(segments.get_color()[0][:3]) for segments in points.collections]
    assert colours == [pytest.approx(VERDICTS["undecided"]), pytest.approx(VERDICTS["no effect"])]
    assert not nothing.collections and len(nats.collections) == 2
    arrows = {line.get_marker(): line.get_xdata()[0] for line in epochs.lines if line.get_marker() in "<>"}
    assert arrows == {">": REACH["epochs"]}


def test_every_row_is_read_aloud_with_its_verdict_and_its_power(table):
    alt = figures.claims(table).alt
    for row in table.itertuples():
        assert f"{row.title}: {row.verdict}" in alt
    assert "undecided (24 points from 84% would show)" in alt


def test_texts_of_a_row_do_not_overlap(table):
    figure = figures.claims(pd.concat([table] * 3))
    figure.draw_without_rendering()
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in axis.texts if text.get_text()]
        pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]]
        assert not any(a.x0 < b.x1 - 1 and b.x0 < a.x1 - 1 and a.y0 < b.y1 - 1 and b.y0 < a.y1 - 1 for a, b in pairs)


def test_every_verdict_has_a_colour(table):
    with pytest.raises(ValueError, match="not enough"):
        figures.claims(table.assign(verdict="reproduced"))
