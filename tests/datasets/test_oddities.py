import numpy as np
import pytest

from histotransfer.datasets.oddities import NO_TISSUE, greys
from histotransfer.stain import NotNormalisable, fit_stains, sample_density


@pytest.mark.parametrize("name", NO_TISSUE)
@pytest.mark.parametrize("size", [48, 224, 600])
def test_pictures_are_of_the_size_and_differ_and_come_again(name, size):
    first, again, other = (np.stack(list(NO_TISSUE[name](4, size, seed))) for seed in (0, 0, 1))
    assert first.shape == (4, size, size, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({picture.tobytes() for picture in first}) == 4


def test_blank_pictures_have_one_colour():
    for picture in NO_TISSUE["blank"](6, 64, 0):
        assert picture.std(axis=(0, 1)).max() < 3


def test_grey_pictures_have_no_colour_and_the_same_forms():
    photographs = list(NO_TISSUE["photograph"](2, 64, 0))
    for colour, grey in zip(photographs, greys(photographs), strict=True):
        assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 1] == grey[..., 2]).all()
        assert np.corrcoef(colour.mean(axis=-1).ravel(), grey[..., 0].ravel())[0, 1] > 0.9


def test_a_blank_picture_is_not_stained_tissue():
    for picture in NO_TISSUE["blank"](3, 112, 0):
        with pytest.raises(NotNormalisable):
            fit_stains(sample_density(picture))
