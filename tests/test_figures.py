import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, confusion_matrix

from histotransfer import figures
from histotransfer.evaluation.metrics import image_metrics, predicted


@pytest.fixture(autouse=True)
def no_window():
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def labelled(axis):
    return bool(axis.get_xlabel() and axis.get_ylabel())


def test_gallery_shows_each_picture_under_its_title():
    images = [np.zeros((4, 4, 3), np.uint8), np.full((6, 5, 3), 255, np.uint8), np.eye(3)]
    figure = figures.gallery(images, ["a", "b", "c"], columns=2)
    shown = [axis for axis in figure.axes if axis.images]
    assert len(figure.axes) == 4
    assert [axis.get_title() for axis in shown] == ["a", "b", "c"]
    assert all(np.array_equal(axis.images[0].get_array(), image) for axis, image in zip(shown, images, strict=True))


PATIENTS = pd.DataFrame(
    {"label": ["benign", "malignant", "benign"], "images": [3, 5, 7], "a": [1, 2, 3], "b": [4, 5, 6]},
    index=["p", "q", "r"],
).assign(a_sd=0.5, b_sd=0.25)


def test_images_per_patient_has_a_bar_a_patient_as_high_as_its_images():
    (axis,) = figures.images_per_patient(PATIENTS).axes
    assert [bar.get_height() for bar in axis.patches if bar.get_height()] == [7, 3, 5]


def test_colour_per_patient_has_a_point_a_patient():
    (axis,) = figures.colour_per_patient(PATIENTS).axes
    points = [tuple(xy) for line in axis.lines for xy in zip(*line.get_data(), strict=True)]
    assert sorted(points) == [(1, 4), (2, 5), (3, 6)]


def test_learning_curves_draw_both_parts_over_all_epochs_of_a_rung():
    history = pd.DataFrame(
        {
            "rung": ["lc25000"] * 2 + ["breakhis"] * 3,
            "stage": ["head", "head", "head", "block4", "block4"],
            "epoch": [1, 2, 1, 1, 2],
            "train_log_loss": [0.5, 0.4, 0.3, 0.2, 0.1],
            "validation_log_loss": [0.6, 0.5, 0.4, 0.3, 0.35],
        }
    )
    first, second = figures.learning_curves(history).axes
    assert [first.get_title(), second.get_title()] == ["lc25000", "breakhis"]
    train, validation = second.lines[:2]
    assert train.get_xydata().tolist() == [[1, 0.3], [2, 0.2], [3, 0.1]]
    assert validation.get_ydata().tolist() == [0.4, 0.3, 0.35]
    assert [text.get_text() for text in second.texts] == ["head", "block4"]
    assert first.get_ylabel() == "log loss (nats)"


def test_roc_encloses_the_auroc(make_predictions):
    predictions = make_predictions()
    (axis,) = figures.roc({"ladder": predictions}).axes
    curve = axis.lines[1]
    assert curve.get_label() == "ladder"
    assert auc(*curve.get_data()) == pytest.approx(image_metrics(predictions)["auroc"])
    assert labelled(axis)


def test_confusion_prints_counts_and_rates(make_predictions):
    predictions = make_predictions()
    counts = confusion_matrix(predictions["truth"], predicted(predictions), labels=["benign", "malignant"])
    (axis,) = figures.confusion(predictions).axes
    texts = [text.get_text().split("\n") for text in axis.texts]
    assert [int(n) for n, _ in texts] == counts.ravel().tolist()
    assert texts[0][1] == f"{counts[0, 0] / counts[0].sum():.0%}"
    assert labelled(axis)


def test_forest_draws_every_interval():
    table = pd.DataFrame(
        [
            {"run": run, "magnification": m, "metric": metric, "value": v, "low": v - 0.1, "high": v + 0.1}
            for (run, m, v) in [
                ("probe", "40", 0.6),
                ("probe", "all", 0.7),
                ("ladder", "40", 0.8),
                ("ladder", "all", 0.5),
            ]
            for metric in ("accuracy", "auroc")
        ]
    )
    (axis,) = figures.forest(table, "auroc").axes
    assert [line.get_label() for line in axis.lines] == ["probe", "ladder"]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[0.6, 0.7], [0.8, 0.5]]
    spans = [segment[:, 0].tolist() for lines in axis.collections for segment in lines.get_segments()]
    assert spans == [pytest.approx([v - 0.1, v + 0.1]) for v in (0.6, 0.7, 0.8, 0.5)]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["40x", "all"]
    assert "AUROC" in axis.get_xlabel()


def test_classes_are_told_apart_by_the_colour_blind_palette():
    assert figures.CLASS_COLOURS["benign"] != figures.CLASS_COLOURS["malignant"]
    with mpl.rc_context():
        figures.use_style()
        assert mpl.rcParams["figure.facecolor"] == "white"
