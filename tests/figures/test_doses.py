import pandas as pd
import pytest

from histotransfer import figures


def test_every_run_is_a_dot_and_too_small_a_dose_lies_on_grey():
    rows = [
        {"arm": arm, "treatment": treatment, "measure": measure, "value": value, "threshold": least, "at_most": most}
        for treatment, measure, least, most, arms in [
            ("gates", "distance", 0.05, False, ["se"]),
            ("fine-tuning", "block4", 0.05, False, ["plain", "se"]),
            ("fine-tuning", "training_log_loss", 0.2, True, ["plain", "se"]),
        ]
        for arm in arms
        for value in (0.02, 0.3)
    ]
    figure = figures.doses(pd.DataFrame(rows))
    gates, block, loss, empty = figure.axes
    assert [label.get_text() for label in gates.get_yticklabels()] == ["se", "plain"]  # from below
    assert [list(line.get_xdata()) for line in gates.lines] == [[0.02, 0.3], [0.05, 0.05]]
    assert [line.get_ydata()[0] for line in block.lines[:2]] == [1, 0]
    spans = [axis.patches[0].get_extents().transformed(axis.transData.inverted()) for axis in (block, loss)]
    assert (spans[0].x0, spans[0].x1) == pytest.approx((0, 0.05))
    assert (spans[1].x0, spans[1].x1) == pytest.approx((0.2, loss.get_xlim()[1]))
    assert not empty.axison
    assert "distance of gates from 1, se: 0.16 (0.02 to 0.3), asked at least 0.05" in figure.alt
    assert "log-loss in training (nats), se: 0.16 (0.02 to 0.3), asked at most 0.2" in figure.alt
