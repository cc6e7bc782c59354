"""Each kind of odd picture gets its note, ordinary tissue none."""

from collections import Counter

import cv2
import numpy as np
import pytest

from histotransfer.datasets import breakhis, ucsb
from histotransfer.datasets.phantom import breast_image
from histotransfer.deploy.notes import MIN_SHARPNESS, OUT_OF_FOCUS, notes, sharpness
from histotransfer.pictures import decode, resize
from histotransfer.stain import Macenko, optical_density

SIDE = 224
FIELDS = [breast_image(patient, at, 0, size=SIDE).image for patient, at in ((0, 40), (5, 100), (12, 200), (17, 400))]
TISSUE = FIELDS[2]


def noted(picture, side=SIDE):
    return notes(picture, resize(picture, side))


def with_pen(colour):
    inked = TISSUE.copy()
    cv2.line(inked, (10, 30), (200, 150), colour, 14)
    return inked


def one_stain(picture, stain, concentration=1.0):
    """The picture as if the other stain had been left out."""
    stains = Macenko().stain_matrix(picture)
    amounts = np.maximum(optical_density(picture) @ np.linalg.pinv(stains), 0)
    amounts[..., 1 - stain] = 0
    return np.clip(240 * np.exp(-concentration * amounts @ stains) - 1, 0, 255).round().astype(np.uint8)


def disc(radius):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = (x**2 + y**2 <= radius**2).astype(np.float32)
    return inside / inside.sum()


GLASS = np.full_like(TISSUE, 240)
SPECK = GLASS.copy()
SPECK[100:110, 100:110] = TISSUE[:10, :10]
KINDS = {
    "too little tissue": {
        "white": np.full_like(TISSUE, 255),
        "glass with a shade": np.clip(np.linspace(215, 250, SIDE)[None, :, None] + np.zeros((SIDE, 1, 3)), 0, 255),
        "glass with a speck": SPECK,
        "tissue so pale that it is glass": 255 - (255 - TISSUE) // 12,
    },
    "pen ink": {
        "green": with_pen((20, 130, 60)),
        "blue": with_pen((40, 60, 160)),
        "black": with_pen((15, 15, 18)),
        "nothing but black": np.zeros_like(TISSUE),
    },
    "one stain only": {
        "haematoxylin": one_stain(TISSUE, 0),
        "eosin": one_stain(TISSUE, 1, 1.5),
        "haematoxylin of another": one_stain(FIELDS[3], 0),
        "haematoxylin, strong": one_stain(FIELDS[0], 0, 1.5),
    },
    OUT_OF_FOCUS: {
        "Gaussian": cv2.GaussianBlur(TISSUE, (0, 0), 4),
        "defocused lens": cv2.filter2D(TISSUE, -1, disc(8)),
        "enlarged many times": resize(resize(TISSUE, 24), SIDE),
        "moved": cv2.blur(cv2.blur(TISSUE, (15, 3)), (3, 15)),
    },
}


@pytest.mark.parametrize(("note", "name"), [(note, name) for note, pictures in KINDS.items() for name in pictures])
def test_an_odd_picture_has_its_note_alone(note, name):
    assert noted(KINDS[note][name].astype(np.uint8)) == [note]


@pytest.mark.parametrize(
    ("width", "height"),
    [(2000, 17), (60, 400), (4000, 3000), (100, 90), (3000, 600)],
)
def test_an_unusual_size_is_noted_whatever_the_picture_shows(width, height):
    picture = cv2.resize(TISSUE, (width, height), interpolation=cv2.INTER_CUBIC)
    assert noted(picture)[0] == f"unusual size ({width}x{height} pixels)"


@pytest.mark.parametrize(("width", "height"), [(700, 460), (896, 768), (768, 768), (224, 224), (460, 700)])
def test_the_sizes_of_the_data_sets_are_usual(width, height):
    assert noted(cv2.resize(TISSUE, (width, height), interpolation=cv2.INTER_CUBIC)) == []


@pytest.mark.parametrize(("size", "side"), [(128, 48), (128, 112), (200, 96), (224, 128), (384, 224)])
def test_ordinary_tissue_has_no_note(size, side):
    """Phantoms larger than their tiles: enlarged, the smooth nuclei of 400x are as blurred as a field out of focus."""
    for patient in range(0, 24, 3):
        for magnification in (40, 100, 200, 400):
            picture = breast_image(patient, magnification, 1, size=size).image
            assert noted(picture, side) == [], (patient, magnification)


def test_noise_and_one_colour_are_noted():
    noise = np.random.default_rng(0).integers(0, 256, TISSUE.shape, dtype=np.uint8)
    for picture in (noise, noise // 2 + 120, np.full_like(TISSUE, (200, 120, 180))):
        assert len(noted(picture)) == 1


def test_what_the_normaliser_left_is_noted_with_its_reason():
    assert notes(TISSUE, TISSUE, "glass would be tinted") == ["colours not normalised (glass would be tinted)"]
    white = KINDS["too little tissue"]["white"]
    _, reason = Macenko().normalise(white)
    assert notes(white, white, reason) == ["too little tissue", "colours not normalised (too little tissue)"]


def test_sharpness_falls_with_blur_and_does_not_depend_on_contrast_or_a_larger_tile():
    blurred = [sharpness(cv2.GaussianBlur(TISSUE, (0, 0), sigma)) for sigma in (0.5, 1, 2, 4)]
    assert blurred == sorted(blurred, reverse=True) and blurred[-1] < MIN_SHARPNESS < blurred[0]
    pale = (TISSUE.astype(float) / 2 + 127).round().astype(np.uint8)
    assert sharpness(pale) == pytest.approx(sharpness(TISSUE), rel=0.1)
    assert sharpness(resize(TISSUE, 448)) == pytest.approx(sharpness(TISSUE), rel=0.15)
    assert sharpness(np.zeros_like(TISSUE)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("load", "most"), [(breakhis.load, 0.02), (ucsb.load, 0.0)])
def test_few_real_pictures_have_a_note(data_root, load, most):
    """1.5 % of BreakHis (fields of fat, nearly all), none of UCSB."""
    found = [noted(decode(path)) for path in load(data_root)["path"]]
    share = np.mean([bool(one) for one in found])
    assert share <= most, Counter(note for one in found for note in one)
