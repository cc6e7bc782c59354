import numpy as np
import pandas as pd
import pytest

from histotransfer import figures
from histotransfer.figures.claims import REACH, UNITS, VERDICTS


@pytest.fixture
def table():
    rows = [
        ("C1 accuracy", "undecided", "24 points away would show", -14.0, -39.0, 0.2, "accuracy", np.nan),
        ("C2 gates", "no effect worth having", "3 points would show", -0.8, -2.6, 1.8, "points", 2),
        ("C3b", "not run yet", "", np.nan, np.nan, np.nan, "", np.nan),
        ("C5 faster", "supported here", "", 3.0, 1.0, 20.0, "epochs", 1),
        ("C6 colours", "not tested as run (colours)", "", 0.3, -0.2, 0.9, "nats", 0.02),
        (
            "C6",
            "no effect worth having; test AUROC no effect worth having",
            "0.07 nats would show",
            0,
            -0.1,
            0,
            "nats",
            0.02,
        ),
        ("C7 size", "contradicted here, as one float32 network", "", np.nan, np.nan, np.nan, "", np.nan),
    ]
    return pd.DataFrame(rows, columns=["title", "verdict", "power", "value", "low", "high", "unit", "margin"])


def test_each_unit_has_a_panel_and_each_row_its_interval_in_the_colour_of_its_verdict(table):
    figure = figures.claims(table)
    assert [axis.get_xlabel() for axis in figure.axes] == [*UNITS.values(), ""]
    accuracy, points, epochs, nats, nothing = figure.axes
    for axis, span, verdict in ((accuracy, [-REACH["accuracy"], 0.2], "undecided"), (points, [-2.6, 1.8], "no effect")):
        claimed, interval = axis.collections
        assert [*claimed.get_segments()[0][:, 0], *interval.get_segments()[0][:, 0]] == [0, 0, *span]
        assert tuple(interval.get_color()[0][:3]) == pytest.approx(VERDICTS[verdict])
    assert [bar.get_width() for bar in (*accuracy.patches, *points.patches)] == [0, 2]
    assert not nothing.collections and len(nats.collections) == 4
    arrows = {line.get_marker(): line.get_xdata()[0] for line in epochs.lines if line.get_marker() in "<>"}
    assert arrows == {">": REACH["epochs"]}


def test_every_row_is_read_aloud_with_its_verdict_and_its_power(table):
    alt = figures.claims(table).alt
    for row in table.itertuples():
        assert f"{row.title}: {row.verdict}" in alt
    assert "undecided (24 points away would show)" in alt


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
