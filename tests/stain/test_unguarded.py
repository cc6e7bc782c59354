import numpy as np
import pytest

from histotransfer.datasets.phantom import breast_image
from histotransfer.stain import normaliser
from histotransfer.stain.unguarded import unguarded

WHITE = np.full((64, 64, 3), 243, np.uint8)


def test_macenkos_formula_is_torchstains():
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

    for patient in range(4):
        image = breast_image(patient, 200, 0).image
        theirs = NumpyMacenkoNormalizer().normalize(image, stains=False)[0]
        assert np.abs(unguarded("macenko", image).astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("name", ["macenko", "vahadane", "reinhard"])
def test_on_tissue_the_formulas_are_what_the_guarded_methods_compute(name):
    image = breast_image(1, 200, 1).image
    out, reason = normaliser(name).normalise(image)
    assert not reason
    assert np.abs(unguarded(name, image).astype(int) - out).mean() < 6


def test_without_tissue_they_stop_or_paint_the_glass():
    assert unguarded("macenko", WHITE) == "LinAlgError"
    assert unguarded("vahadane", WHITE) == "ValueError"
    assert unguarded("reinhard", WHITE).max() == 0
    speck = WHITE.copy()
    speck[5, 5] = (120, 60, 140)
    assert unguarded("macenko", speck) == "LinAlgError"
    glass = unguarded("reinhard", speck)[32, 32].astype(int)
    assert np.ptp(glass) > 30
