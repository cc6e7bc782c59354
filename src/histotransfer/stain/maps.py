"""Pixel maps: a uint8 image in, a uint8 image out, strip by strip so that the floats stay in the cache."""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from histotransfer.stain.density import DENSITY, LEVELS, LIGHT, MIN_GLASS, glass_mask

STRIP = 24_000  # pixels mapped at a time: the floats in between stay in a core's cache
MAX_GLASS_SHIFT = 15.0  # CIELAB delta E that glass may move

# Grey level to linear light (sRGB, IEC 61966-2-1), which spares the conversion to CIELAB its slowest step.
LINEAR = np.where(LEVELS > 10, ((LEVELS / 255 + 0.055) / 1.055) ** 2.4, LEVELS / 255 / 12.92).astype(np.float32)
# Linear light in 16 bits back to grey levels: a look-up, where OpenCV's own float conversion evaluates a spline.
_LIGHT = np.arange(2**16) / (2**16 - 1)
GREY = np.rint(255 * np.where(_LIGHT > 0.0031308, 1.055 * _LIGHT ** (1 / 2.4) - 0.055, 12.92 * _LIGHT)).astype(np.uint8)
# How much of a pixel is glass, by its darkest channel: 0 up to the first level, 1 from the second, smooth between them.
RAMP = (200, 225)
_RISE = np.clip((LEVELS - RAMP[0]) / (RAMP[1] - RAMP[0]), 0, 1)
GLASS = (_RISE * _RISE * (3 - 2 * _RISE)).astype(np.float32)


def map_density(image: np.ndarray, matrix: np.ndarray, offset: np.ndarray | Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """Apply `density -> matrix @ density + offset` to a uint8 image `(H, W, 3)` and render it as uint8 again.

    One table look-up, one 3x3 product and one exponential per pixel: all that a stain normaliser has to do.
    """
    affine = np.column_stack([-matrix, np.log(LIGHT) - np.asarray(offset)]).astype(np.float32)
    out = np.empty_like(image)
    for rows in _strips(image):
        levels = cv2.transform(cv2.LUT(image[rows], DENSITY), affine)
        # e^6 = 403 is white all the same; beyond the range of an integer the conversion would wrap to black.
        cv2.threshold(levels, 6.0, 6.0, cv2.THRESH_TRUNC, levels)
        cv2.exp(levels, levels)
        cv2.convertScaleAbs(levels, out[rows], 1.0, -1.0)
    return out


def map_lab(image: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Apply `lab -> scale * lab + shift` by channel to a uint8 image `(H, W, 3)`; clipped to the sRGB gamut."""
    affine = np.column_stack([np.diag(scale), shift]).astype(np.float32)
    out = np.empty_like(image)
    for rows in _strips(image):
        light = cv2.cvtColor(cv2.transform(to_lab(image[rows]), affine), cv2.COLOR_LAB2LRGB)
        # A weighted sum is OpenCV's way to scale to 16 bits; what lies beyond the gamut saturates.
        levels = cv2.addWeighted(light, 2**16 - 1, light, 0, 0, dtype=cv2.CV_16U)
        cv2.LUT(levels, GREY, out[rows])
    return out


def to_lab(image: np.ndarray) -> np.ndarray:
    """CIELAB (D65, L 0..100) of a uint8 sRGB image `(H, W, 3)`; float32."""
    return cv2.cvtColor(cv2.LUT(image, LINEAR), cv2.COLOR_LRGB2LAB)


def keep_glass(image: np.ndarray, mapped: np.ndarray) -> np.ndarray:
    """`mapped` with the glass of `image` put back, blended over the pale margin between glass and tissue."""
    out = np.empty_like(image)
    for rows in _strips(image):
        red, green, blue = cv2.split(image[rows])
        glass = cv2.merge([cv2.LUT(cv2.min(cv2.min(red, green), blue), GLASS)] * 3)
        source, target = image[rows].astype(np.float32), mapped[rows].astype(np.float32)
        cv2.convertScaleAbs(target + glass * (source - target), out[rows])
    return out


def _strips(image: np.ndarray) -> Iterator[slice]:
    height, width = image.shape[:2]
    step = max(1, STRIP // width)
    return (slice(top, top + step) for top in range(0, height, step))


def glass_shift(density: np.ndarray, mapping: Callable[[np.ndarray], np.ndarray]) -> float:
    """CIELAB delta E by which `mapping` (image to image) moves the glass of densities `(3, N)`; 0 without glass."""
    glass = glass_mask(density)
    if np.count_nonzero(glass) < max(1, MIN_GLASS * glass.size):
        return 0.0
    levels = LIGHT * np.exp([-channel[glass].mean() for channel in density]) - 1
    colour = levels.round().astype(np.uint8)[None, None]
    return float(np.linalg.norm(to_lab(mapping(colour)) - to_lab(colour)))
