import numpy as np
import pandas as pd

from histotransfer import figures

PATIENTS = pd.DataFrame(
    {"label": ["benign", "malignant", "benign"], "images": [3, 5, 7], "a": [1, 2, 3], "b": [4, 5, 6]},
    index=["p", "q", "r"],
).assign(a_sd=0.5, b_sd=0.25)


def labelled(axis):
    return bool(axis.get_xlabel() and axis.get_ylabel())


def test_gallery_shows_each_picture_under_its_title():
    images = [np.zeros((4, 4, 3), np.uint8), np.full((6, 5, 3), 255, np.uint8), np.eye(3)]
    figure = figures.gallery(images, ["a", "b", "c"], columns=2)
    shown = [axis for axis in figure.axes if axis.images]
    assert len(figure.axes) == 4
    assert [axis.get_title() for axis in shown] == ["a", "b", "c"]
    assert all(np.array_equal(axis.images[0].get_array(), image) for axis, image in zip(shown, images, strict=True))


def test_images_per_patient_shades_those_who_give_half_of_their_class():
    table = pd.DataFrame({"label": ["benign"] * 4 + ["malignant"], "images": [2, 9, 3, 3, 6]})
    figure = figures.images_per_patient(table)
    benign, malignant = figure.axes
    assert [bar.get_height() for bar in benign.patches] == [9, 3, 3, 2]
    assert [bar.get_alpha() or bar.get_facecolor()[3] for bar in benign.patches] == [1, 0.35, 0.35, 0.35]
    assert [bar.get_height() for bar in malignant.patches] == [6]
    assert "benign: 1 of 4 patients give half of 17 images" in figure.alt
    assert "malignant: 1 of 1 patients give half of 6 images" in figure.alt


def test_patient_strips_count_test_patients_who_trained_too():
    groups = ["p"] * 3 + ["q"] * 2 + ["r"] * 2
    table = pd.DataFrame({"group": groups})
    apart = table.assign(split=["test"] * 3 + ["train"] * 2 + ["validation"] * 2)
    mixed = table.assign(split=["train", "test", "validation", "train", "test", "test", "test"])
    figure = figures.patient_strips({"by patient": apart, "by image": mixed})
    assert "by patient: 0 of 1 test patients are also in training" in figure.alt
    assert "by image: 2 of 3 test patients are also in training" in figure.alt  # p and q trained, r did not
    heights = [
        {bars.get_label(): [bar.get_height() for bar in bars] for bars in axis.containers} for axis in figure.axes
    ]
    # In the order of the parts of the first split: q, r, p.
    assert heights[0] == {"train": [2, 0, 0], "validation": [0, 2, 0], "test": [0, 0, 3]}
    assert heights[1] == {"train": [1, 0, 1], "validation": [0, 0, 1], "test": [1, 2, 1]}
    tops = [bar.get_y() + bar.get_height() for bar in figure.axes[1].containers[-1]]
    assert tops == [2, 2, 3]  # a strip is as high as its patient has images


def test_colour_per_patient_has_a_point_a_patient():
    (axis,) = figures.colour_per_patient(PATIENTS).axes
    points = [tuple(xy) for line in axis.lines for xy in zip(*line.get_data(), strict=True)]
    assert sorted(points) == [(1, 4), (2, 5), (3, 6)]


def test_picture_table_names_rows_and_columns_and_writes_words():
    picture = np.full((4, 4, 3), 90, np.uint8)
    figure = figures.picture_table({"a": [picture, "LinAlgError"], "b": [picture, picture]}, ["before", "after"])
    first, word, third, _ = figure.axes
    assert [first.get_title(), word.get_title(), third.get_title()] == ["before", "after", ""]
    assert [first.get_ylabel(), third.get_ylabel()] == ["a", "b"]
    assert np.array_equal(first.images[0].get_array(), picture)
    assert not word.images and [text.get_text() for text in word.texts] == ["Lin\nAlg\nError"]
