import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.patches import Rectangle
from sklearn.metrics import auc, average_precision_score, confusion_matrix

from histotransfer import figures
from histotransfer.evaluation.metrics import image_metrics, predicted, scores
from histotransfer.study.records import read_run


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


def test_several_seeds_are_a_mean_and_a_band():
    run = pd.DataFrame(
        {"rung": "breakhis", "stage": "head", "train_log_loss": [0.6, 0.3], "validation_log_loss": [0.7, 0.5]}
    )
    both = pd.concat([run.assign(seed=0), (run.assign(seed=1, validation_log_loss=[0.9, 0.6]))])
    figure = figures.learning_curves(both)
    (axis,) = figure.axes
    assert [line.get_ydata().tolist() for line in axis.lines[:2]] == [[0.6, 0.3], pytest.approx([0.8, 0.55])]
    band = axis.collections[1].get_paths()[0].vertices
    assert {tuple(np.round(vertex, 2)) for vertex in band} >= {(1, 0.7), (1, 0.9), (2, 0.5), (2, 0.6)}
    assert (
        "validation: 0.80 in epoch 1, lowest 0.55 in epoch 2, 0.55 (0.50 to 0.60 over 2 seeds) in epoch 2" in figure.alt
    )


def test_compared_curves_have_a_panel_a_question():
    run = pd.DataFrame({"validation_log_loss": [0.7, 0.5, 0.6]})
    seeds = figures.by_seed(run, "validation_log_loss")
    assert seeds.index.tolist() == [1, 2, 3] and seeds[0].tolist() == [0.7, 0.5, 0.6]
    figure = figures.compared_curves({"F1": {"few": seeds}, "F2": {"with": seeds, "without": seeds + 1}})
    assert [axis.get_title() for axis in figure.axes] == ["F1", "F2"]
    assert figure.axes[0].get_ylabel() == "log-loss (nats)"
    assert "F2, without: 1.70 in epoch 1, lowest 1.50 in epoch 2, 1.60 in epoch 3" in figure.alt


def test_failure_signatures_draw_the_arms_of_the_record():
    histories = pd.read_csv("results/failures/histories.csv")
    figure = figures.failure_signatures(histories)
    assert [len(axis.lines) for axis in figure.axes] == [2, 3, 2]
    few = histories[histories["arm"] == "few images"].groupby("epoch")["validation_log_loss"].mean()
    assert figure.axes[0].lines[1].get_ydata() == pytest.approx(few.to_numpy())
    assert "F3 slow convergence, ImageNet" in figure.alt


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
    assert figure.alt.count("right, mean probability") == 4 and labelled(axis)


def test_reliability_draws_each_bin_with_its_interval_and_images():
    columns = ["bin", "predicted", "observed", "low", "high", "images", "patients"]
    bins = pd.DataFrame([[0.0, 0.05, 0.1, 0.0, 0.4, 7, 3], [0.9, 0.95, 1.0, np.nan, np.nan, 2, 1]], columns=columns)
    figure = figures.reliability_diagram({"ladder": bins})
    (axis,) = figure.axes
    assert axis.lines[1].get_xydata().tolist() == bins[["predicted", "observed"]].to_numpy().tolist()
    assert [int(text.get_text()) for text in axis.texts] == bins["images"].tolist()
    assert "ladder: 0.10 [0.00,\xa00.40] at 0.05 (7 images, 3 patients), 1.00 at 0.95 (2 images, 1" in figure.alt


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
    n = "20 images, 2 + 3 patients"
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"40x\n{n}", f"all\n{n}"]
    assert "AUROC" in axis.get_xlabel()
    assert "all, probe 0.70 [0.60,\N{NO-BREAK SPACE}0.80], ladder 0.50" in figure.alt


def test_a_forest_of_differences_has_a_line_at_none():
    row = {"run": "b minus a", "magnification": "all", "metric": "auroc", "images": 20, "patients": "2 + 3"}
    table = pd.DataFrame([{**row, "value": -0.2, "low": -0.5, "high": 0.1}])
    (axis,) = figures.forest(table, "auroc").axes
    assert any(line.get_xdata() == [0, 0] for line in axis.lines[1:]) and axis.get_xlim()[0] < -0.5


def test_overlays_cross_the_hottest_cell_and_say_whether_it_is_inside():
    tiles = np.full((3, 9, 9, 3), 200, np.uint8)
    maps = np.full((3, 3, 3), -1.0)
    maps[0, 0, 0], maps[1, 1, 1], maps[2, 2, 1] = 1, 1, -0.5
    masks = np.zeros((3, 9, 9), bool)
    masks[:2, :4, :4] = True
    figure = figures.overlays(tiles, maps, ["a\nb", "c", "d"], masks)
    crosses = [axis.lines[-1].get_xydata().tolist() for axis in figure.axes[3:]]
    assert crosses == [[[1, 1]], [[4, 4]], [[4, 7]]]
    assert "a, b: hottest cell upper left, inside the region" in figure.alt
    assert "c: hottest cell in the middle, outside the region; d: hottest cell lower, no region" in figure.alt
    assert figure.axes[5].images[-1].get_array().max() == 0  # no evidence, no colour


def test_means_stand_under_their_names_with_their_intervals():
    table = pd.DataFrame(
        {"value": [0.5, -0.2], "low": [0.4, -0.4], "high": [0.6, 0.0], "images": 9, "patients": 3}, index=["a", "b"]
    )
    figure = figures.means_with_intervals(table, "share")
    (axis,) = figure.axes
    spans = [segment[:, 0].tolist() for segment in axis.collections[0].get_segments()]
    assert spans == [[0.4, 0.6], [-0.4, 0.0]]
    assert "9 images, 3 patients" in axis.get_xlabel()
    assert [text.get_text() for text in axis.texts] == ["0.50 [0.40,\xa00.60]", "-0.20 [-0.40,\xa00.00]"]
    said = "a 0.50 [0.40,\xa00.60] (9 images, 3 patients); b -0.20 [-0.40,\xa00.00] (9 images, 3 patients)"
    assert figure.alt == f"share with 95 % intervals. {said}."
    (axis,) = figures.means_with_intervals(table.assign(images=[9, 8]), "share").axes
    assert [label.get_text() for label in axis.get_yticklabels()][1] == "b\n8 images, 3 patients"


def test_gate_profiles_are_sorted_by_channel_means():
    rows = [
        {
            "gate": "denseblock4",
            "channel": c,
            "class": label,
            "patients": 3,
            "value": v,
            "low": v - 0.1,
            "high": v + 0.1,
        }
        for label, values in {"benign": (1.2, 0.9), "malignant": (1.4, 0.7)}.items()
        for c, v in enumerate(values)
    ]
    figure = figures.gate_profile(pd.DataFrame(rows))
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[0.9, 1.2], [0.7, 1.4]]
    assert figure.alt == (
        "Mean SE gates by class (3 benign, 3 malignant patients). denseblock4: 0.700000 to 1.400000 over 2 channels."
    )


def test_ipython_publishes_the_alt_text_with_the_picture():
    figure = figures.learning_curves(read_run("results/spine/ladder").history)
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(type(figure), lambda drawn: b"picture")
    data, metadata = formatter.format(figure)
    assert data["image/png"] == b"picture"
    assert metadata["image/png"] == {"alt": figure.alt}


def test_classes_are_told_apart_by_the_colour_blind_palette():
    assert figures.CLASS_COLOURS["benign"] != figures.CLASS_COLOURS["malignant"]
    with mpl.rc_context():
        figures.use_style()
        assert mpl.rcParams["figure.facecolor"] == "white"


def test_stain_plane_draws_pixels_on_both_sides_and_the_stains_through_the_origin():
    stains = np.array([[0.60, 0.72, 0.34], [0.25, 0.82, 0.51]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    amounts = np.random.default_rng(0).uniform(0.1, 1, (500, 2))
    figure = figures.stain_plane((amounts @ stains).T, stains)
    face, edge = figure.axes
    assert all(len(axis.collections[0].get_offsets()) == 500 for axis in (face, edge))
    assert np.abs(edge.collections[0].get_offsets()[:, 1]).max() < 1e-6
    for line, name in zip(face.lines, ("haematoxylin", "eosin"), strict=True):
        assert line.get_label() == name and line.get_xydata()[0].tolist() == [0, 0]
    # The pixels fan out between the stains.
    x, y = face.collections[0].get_offsets().T
    slopes = sorted(line.get_xydata()[1][1] / line.get_xydata()[1][0] for line in face.lines)
    assert slopes[0] <= (y / x).min() and (y / x).max() <= slopes[1]
    assert "100.0%" in figure.alt and labelled(face) and labelled(edge)


def test_picture_table_names_rows_and_columns_and_writes_words():
    picture = np.full((4, 4, 3), 90, np.uint8)
    figure = figures.picture_table({"a": [picture, "LinAlgError"], "b": [picture, picture]}, ["before", "after"])
    first, word, third, _ = figure.axes
    assert [first.get_title(), word.get_title(), third.get_title()] == ["before", "after", ""]
    assert [first.get_ylabel(), third.get_ylabel()] == ["a", "b"]
    assert np.array_equal(first.images[0].get_array(), picture)
    assert not word.images and [text.get_text() for text in word.texts] == ["LinAlgError"]


def test_the_drawn_block_grows_by_what_each_layer_adds():
    figure = figures.dense_block_with_gate(channels=8, growth_rate=4, layers=2, reduction=2)
    (axis,) = figure.axes
    stacks = {}
    for part in axis.patches:
        if isinstance(part, Rectangle):
            stacks[part.get_x()] = stacks.get(part.get_x(), 0) + part.get_height()
    heights = [stacks[x] * 16 for x in sorted(stacks)]
    assert heights == pytest.approx([8, 12, 16, 16])  # before, after each layer, after the gate
    texts = [text.get_text() for text in axis.texts]
    assert all(channels in texts for channels in ("8", "12", "16"))
    assert any("16 → 8 → 16" in text for text in texts)


def test_pareto_joins_what_nothing_beats():
    table = pd.DataFrame(
        {
            "net": ["a", "b", "c", "d"],
            "size": [112, 112, 224, 224],
            "GFLOPs": [1.0, 2.0, 3.0, 4.0],
            "auroc": [0.6, 0.8, 0.7, np.nan],
        }
    )
    table["low"], table["high"] = table["auroc"] - 0.1, table["auroc"] + 0.2
    figure = figures.pareto(table, "GFLOPs")
    (axis,) = figure.axes
    assert axis.lines[0].get_xydata().tolist() == [[1.0, 0.6], [2.0, 0.8]]
    points = {tuple(line.get_xydata()[0]) for line in axis.lines[1:] if len(line.get_xydata()) == 1}
    assert {(1.0, 0.6), (2.0, 0.8), (3.0, 0.7)} <= points
    assert "a at 112 pixels (0.60), b at 112 pixels (0.80)" in figure.alt
    assert labelled(axis)
