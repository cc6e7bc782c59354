import numpy as np
import pytest

from histotransfer import figures
from histotransfer.datasets import phantom
from histotransfer.stain import Macenko, NotNormalisable


def labelled(axis):
    return bool(axis.get_xlabel() and axis.get_ylabel())


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
    assert "100.0%" in figure.alt and face.get_ylabel() and labelled(edge)


def test_the_steps_of_macenko_end_in_what_the_method_gives():
    field, method = phantom.breast_image(0, 200, 0), Macenko()
    figure = figures.macenko_steps(field.image, method)
    picture, _, angles, haematoxylin, eosin, restained = figure.axes
    assert [axis.get_title()[0] for axis in figure.axes] == list("123445")
    assert np.array_equal(picture.images[0].get_array(), field.image)
    assert np.array_equal(restained.images[0].get_array(), method.transform(field.image))
    # The two percentiles are as far apart as the method's own stain vectors.
    ends = [line.get_xdata()[0] for line in angles.lines]
    stains = method.stain_matrix(field.image)
    assert abs(ends[1] - ends[0]) == pytest.approx(np.degrees(np.arccos(stains[0] @ stains[1])), abs=0.5)
    assert {line.get_label() for line in angles.lines} == {"haematoxylin", "eosin"}
    assert f"{ends[0]:.0f}° and {ends[1]:.0f}°" in figure.alt
    # One stain over the other is the picture: their densities add.
    alone = [-np.log(np.maximum(axis.images[0].get_array().data, 1) / 240.0) for axis in (haematoxylin, eosin)]
    off = np.abs(240 * np.exp(-sum(alone)) - field.image)
    assert np.median(off) < 4
    assert np.corrcoef(alone[0].mean(axis=-1).ravel(), field.concentrations[..., 0].ravel())[0, 1] > 0.9
    assert np.corrcoef(alone[1].mean(axis=-1).ravel(), field.concentrations[..., 1].ravel())[0, 1] > 0.9


def test_glass_has_no_steps():
    with pytest.raises(NotNormalisable, match="too little tissue"):
        figures.macenko_steps(np.full((64, 64, 3), 243, np.uint8), Macenko())
