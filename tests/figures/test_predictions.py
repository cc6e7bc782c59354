import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, average_precision_score, confusion_matrix

from histotransfer import figures
from histotransfer.evaluation.metrics import image_metrics, predicted, scores


def labelled(axis):
    return bool(axis.get_xlabel() and axis.get_ylabel())


def test_roc_encloses_the_auroc(make_predictions):
    predictions = make_predictions()
    figure = figures.roc({"ladder": predictions})
    (axis,) = figure.axes
    area = image_metrics(predictions)["auroc"]
    assert auc(*axis.lines[1].get_data()) == pytest.approx(area, abs=0.02)
    assert axis.get_title() == "ladder\n60 images, 12 patients"
    assert f"ladder {area:.2f}" in figure.alt and "60 images, 12 patients" in figure.alt
    assert labelled(axis)


def test_precision_recall_shows_what_a_guess_would_give(make_predictions):
    predictions = make_predictions(9)
    figure = figures.precision_recall({"ladder": predictions, "frozen-probe": predictions})
    first, second = figure.axes
    positive = predictions["truth"] == "malignant"
    assert first.lines[0].get_ydata() == pytest.approx([positive.mean()] * 2)
    assert f"ladder {average_precision_score(positive, scores(predictions)):.2f}" in figure.alt
    assert first.lines[1].get_color() == figures.RUN_COLOURS["ladder"] != second.lines[1].get_color()


def test_confusion_prints_counts_and_rates(make_predictions):
    predictions = make_predictions()
    counts = confusion_matrix(predictions["truth"], predicted(predictions), labels=["benign", "malignant"])
    figure = figures.confusion(predictions)
    (axis,) = figure.axes
    texts = [text.get_text().split("\n") for text in axis.texts]
    assert [int(n) for n, _ in texts] == counts.ravel().tolist()
    assert texts[0][1] == f"{counts[0, 0] / counts[0].sum():.0%}"
    assert f"of {counts[1].sum()} malignant images {counts[1, 0]} predicted benign" in figure.alt
    assert labelled(axis)


def test_patients_are_dots_means_and_shares(make_predictions):
    predictions = make_predictions(4)
    figure = figures.patients(predictions)
    (axis,) = figure.axes
    right = (predicted(predictions) == predictions["truth"]).groupby(predictions["group"]).mean()
    shown = dict(label.get_text().split("\n") for label in axis.get_xticklabels())
    assert shown == {group: f"{share:.0%}" for group, share in right.items()}
    dots = [line for line in axis.lines if line.get_marker() == "."]
    drawn = np.concatenate([line.get_ydata() for line in dots])
    assert sorted(drawn) == pytest.approx(sorted(scores(predictions)))
    bars = sorted(bar.get_segments()[0][0, 1] for bar in axis.collections)
    logit = np.log(scores(predictions) / (1 - scores(predictions)))
    means = pd.Series(logit).groupby(predictions["group"].to_numpy()).mean()
    assert bars == pytest.approx(sorted(1 / (1 + np.exp(-means))), abs=1e-6)  # of mean logits, not of probabilities
    assert figure.alt.count("right, scored") == 4 and labelled(axis)
    assert figures.patients(predictions, "slide").axes[0].get_xlabel() == "slide, and share of its images that is right"


def test_many_patients_are_counted_and_not_named(make_predictions):
    figure = figures.patients(make_predictions(40))
    (axis,) = figure.axes
    assert not axis.get_xticklabels() and axis.get_xlabel() == "40 patients"
    assert figure.alt.count("right, scored") == 40


def test_reliability_draws_each_bin_with_its_interval_and_images():
    columns = ["bin", "predicted", "observed", "low", "high", "images", "patients"]
    bins = pd.DataFrame([[0.0, 0.05, 0.1, 0.0, 0.4, 7, 3], [0.9, 0.95, 1.0, np.nan, np.nan, 2, 1]], columns=columns)
    figure = figures.reliability_diagram({"ladder": bins})
    (axis,) = figure.axes
    assert axis.lines[1].get_xydata().tolist() == bins[["predicted", "observed"]].to_numpy().tolist()
    assert [int(text.get_text()) for text in axis.texts] == bins["images"].tolist()
    assert "ladder: 0.10 [0.00,\xa00.40] at 0.05 (7 images, 3 patients), 1.00 at 0.95 (2 images, 1" in figure.alt
