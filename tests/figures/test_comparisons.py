import itertools

import numpy as np
import pandas as pd
import pytest

from histotransfer import figures


def labelled(axis):
    return bool(axis.get_xlabel() and axis.get_ylabel())


def test_forest_draws_every_interval():
    table = pd.DataFrame(
        [
            {"run": run, "magnification": m, "metric": metric, "value": v, "low": v - 0.1, "high": v + 0.1}
            | {"images": 20, "patients": "2 + 3"}
            for (run, m, v) in [
                ("probe", "40", 0.6),
                ("probe", "all", 0.7),
                ("ladder", "40", 0.8),
                ("ladder", "all", 0.5),
            ]
            for metric in ("accuracy", "auroc")
        ]
    )
    figure = figures.forest(table, "auroc")
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["probe", "ladder"]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[0.6, 0.7], [0.8, 0.5]]
    spans = [segment[:, 0].tolist() for lines in axis.collections for segment in lines.get_segments()]
    assert spans == [pytest.approx([v - 0.1, v + 0.1]) for v in (0.6, 0.7, 0.8, 0.5)]
    n, by = "20 images\n2 + 3 patients", "20 images\n2 + 3 slides"
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"40x\n{n}", f"all\n{n}"]
    assert axis.get_xlabel() == "AUROC with 95 % interval,\nclustered by patient"
    (axis,) = figures.forest(table, "auroc", unit="slides").axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"40x\n{by}", f"all\n{by}"]
    assert axis.get_xlabel() == "AUROC with 95 % interval,\nclustered by slide"
    assert "all, probe 0.70 [0.60,\N{NO-BREAK SPACE}0.80], ladder 0.50" in figure.alt


def test_a_forest_says_what_the_larger_class_alone_gets():
    row = {"run": "a", "magnification": "40", "metric": "accuracy", "value": 0.7, "low": 0.6, "high": 0.8}
    table = pd.DataFrame([row | {"images": 20, "patients": "2 + 3"}])
    figure = figures.forest(table, "accuracy", larger_class=pd.Series({"40": 0.62}))
    (axis,) = figure.axes
    assert [line.get_xdata().tolist() for line in axis.lines if line.get_label() == "larger class"] == [[0.62]]
    assert figure.alt.endswith("Always answering with the larger class: 40x 0.62.")


def test_a_forest_of_differences_has_a_line_at_none():
    row = {"run": "b minus a", "magnification": "all", "metric": "auroc", "images": 20, "patients": "2 + 3"}
    for value, low, high in ((-0.2, -0.5, 0.1), (0.2, 0.1, 0.3)):
        table = pd.DataFrame([{**row, "value": value, "low": low, "high": high, "smallest": 0.4}])
        figure = figures.forest(table, "auroc")
        (axis,) = figure.axes
        assert any(line.get_xdata() == [0, 0] for line in axis.lines[1:]) and axis.get_xlim()[0] < low
        assert axis.get_xlabel().startswith("difference in AUROC") and figure.alt.startswith("difference in AUROC")


def test_means_stand_under_their_names_with_their_intervals():
    table = pd.DataFrame(
        {"value": [0.5, -0.2], "low": [0.4, -0.4], "high": [0.6, 0.0], "images": 9, "patients": 3}, index=["a", "b"]
    )
    figure = figures.means_with_intervals(table, "share")
    (axis,) = figure.axes
    spans = [segment[:, 0].tolist() for segment in axis.collections[0].get_segments()]
    assert spans == [[0.4, 0.6], [-0.4, 0.0]]
    assert "9 images, 3 patients" in figure.get_supxlabel()
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["a\n0.50 [0.40,\xa00.60]", "b\n-0.20 [-0.40,\xa00.00]"]
    said = "a 0.50 [0.40,\xa00.60] (9 images, 3 patients); b -0.20 [-0.40,\xa00.00] (9 images, 3 patients)"
    assert figure.alt == f"share with 95 % intervals. {said}."
    assert axis.get_ylim() == (1.5, -0.5) and axis.get_xlim()[1] < 1
    shares = figures.means_with_intervals(table.abs().assign(low=0.1), "share")
    assert shares.axes[0].get_xlim()[1] == 1.02
    (axis,) = figures.means_with_intervals(table.assign(images=[9, 8]), "share").axes
    assert [label.get_text() for label in axis.get_yticklabels()][1] == f"{names[1]}\n8 images, 3 patients"
    figure = figures.means_with_intervals(table, "share", unit="slides")
    assert figure.get_supxlabel() == "share\n9 images, 3 slides\n95 % intervals by slide"


def test_names_of_several_lines_do_not_overlap():
    about = {"value": 0.5, "low": 0.4, "high": 0.6, "patients": 3}
    table = pd.DataFrame([about | {"images": i} for i in range(5)], index=["one minus other,\none minus another"] * 5)
    figure = figures.means_with_intervals(table, "share")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))


def test_pareto_joins_what_nothing_beats():
    table = pd.DataFrame(
        {
            "net": ["a", "b", "c", "d"],
            "size": [112, 112, 224, 224],
            "GMAC": [1.0, 2.0, 3.0, 4.0],
            "auroc": [0.6, 0.8, 0.7, np.nan],
        }
    )
    table["low"], table["high"] = table["auroc"] - 0.1, table["auroc"] + 0.2
    figure = figures.pareto(table, "GMAC")
    (axis,) = figure.axes
    assert axis.lines[0].get_xydata().tolist() == [[1.0, 0.6], [2.0, 0.8]]
    points = {tuple(line.get_xydata()[0]) for line in axis.lines[1:] if len(line.get_xydata()) == 1}
    assert {(1.0, 0.6), (2.0, 0.8), (3.0, 0.7)} <= points
    assert "a at 112 pixels (0.60), b at 112 pixels (0.80)" in figure.alt
    assert labelled(axis)


def test_a_learning_curve_shows_before_and_after_with_intervals():
    values = {("before", 0): 0.5, ("head", 2): 0.6, ("head", 4): 0.7, ("block4", 2): 0.55, ("block4", 4): 0.8}
    table = pd.DataFrame(
        [
            {"run": run, "labelled": n, "metric": metric, "value": v, "low": v - 0.1, "high": v + 0.1}
            | {"draws": 3, "images": 58, "patients": "5 + 4"}
            for (run, n), v in values.items()
            for metric in ("balanced_accuracy", "log_loss")
        ]
    )
    figure = figures.by_labelled_patients(table, unit="slides")
    assert all(labelled(axis) for axis in figure.axes) and len(figure.axes) == 2
    (axis, _) = figure.axes
    curves = {line.get_label(): line.get_ydata() for line in axis.lines if not line.get_label().startswith("_")}
    assert {name: list(own) for name, own in curves.items()} == {
        "before": [0.5],
        "head": [0.6, 0.7],
        "block4": [0.55, 0.8],
    }
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "2", "4"]
    spans = [segment[:, 1].tolist() for lines in axis.collections for segment in lines.get_segments()]
    assert spans == [pytest.approx([v - 0.1, v + 0.1]) for v in values.values()]
    assert "58 images of 5 + 4 slides that were kept apart" in figure.alt
    assert "balanced accuracy, block4: 2 0.55 [0.45,\N{NO-BREAK SPACE}0.65], 4 0.80" in figure.alt


def test_a_ring_marks_the_candidate_that_was_chosen_for_each_fold():
    criteria = pd.DataFrame({"plain": [0.7, 0.9], "se": [0.8, 0.6]}, index=pd.Index([0, 1], name="test fold"))
    figure = figures.choices(criteria, {0: "se", 1: "plain"})
    *candidates, rings = figure.axes[0].lines
    assert [line.get_label() for line in candidates] == ["plain", "se"]
    assert list(candidates[1].get_xdata()) == [0.8, 0.6]
    assert list(rings.get_xdata()) == [0.8, 0.9]
    assert "for fold 0 se, of plain 0.700, se 0.800; for fold 1 plain" in figure.alt
