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


def test_images_per_patient_has_a_bar_a_patient_as_high_as_its_images():
    (axis,) = figures.images_per_patient(PATIENTS).axes
    assert [bar.get_height() for bar in axis.patches if bar.get_height()] == [7, 3, 5]


def test_colour_per_patient_has_a_point_a_patient():
    (axis,) = figures.colour_per_patient(PATIENTS).axes
    points = [tuple(xy) for line in axis.lines for xy in zip(*line.get_data(), strict=True)]
    assert sorted(points) == [(1, 4), (2, 5), (3, 6)]


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
