"""Optical density, and the two stain vectors in it: pure functions, densities channels first `(3, N)`."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import cv2
import numpy as np

from histotransfer.errors import HistotransferError

LIGHT = 240.0  # I0, the grey level of unstained glass, as in every public Macenko code
GLASS_LEVEL = 215  # a pixel brighter than this in every channel is glass
MIN_GLASS = 0.01  # share of pixels from which glass can be measured
TRANSPARENT = 0.15  # Macenko's beta: a pixel with a channel below this density is no evidence of stains

SPARSITY = 0.003  # Vahadane's lambda
SAMPLE = 40_000  # pixels that parameters are estimated on

# Rows haematoxylin and eosin: the reference of the first public Macenko code, which its ports ship.
REFERENCE_STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
REFERENCE_CONCENTRATIONS = np.array([1.9705, 1.0308])

# Guards. Their limits lie outside what BreakHis, UCSB and LC25000 tiles show (1st to 99th percentile).
MIN_TISSUE = 0.02  # share of pixels dense enough in every channel
MIN_TISSUE_PIXELS = 64
MAX_INK = 0.03  # share of pixels in a colour no H&E tissue has
INK_DARK = 1.5  # density of a pixel, all channels together, above which it can be ink; black is so dark in each
INK_GREEN = 0.7  # of red: ink absorbs less green
INK_GREEN_BLUE = ((0.8, 0.25), (1.05, 0.12))  # of red: ink absorbs less of both
MIN_VARIANCE = 1e-3  # of optical density along its first axis
MAX_FLATNESS = 0.95  # third over second variance: stains span a plane, noise fills the space
STAIN_ANGLE = (6.0, 50.0)  # degrees between the two stain vectors
MAX_DRIFT = 38.0  # degrees between a stain vector and the published one
MIN_ABSORPTION = -0.05  # of a unit stain vector in a channel: no stain emits light
# What counts as normalised already.
IN_PLANE = 0.012  # optical density off the reference's stain plane, 75th percentile over the darker half of the tissue
SAME_AMOUNT = 0.02  # relative difference of the maximum concentrations

LEVELS = np.arange(256)
DENSITY = np.log(LIGHT / (LEVELS + 1.0)).astype(np.float32)


class NotNormalisable(HistotransferError):
    """A tile fails a guard; the message is the reason."""


class StainFit(NamedTuple):
    """Stain vectors `(2, 3)`, unit rows haematoxylin and eosin; the 99th percentiles `(2,)` of their amounts.

    `glass` `(3,)` is the optical density of unstained glass: 0 where that is taken to be white of level `I0`.
    """

    stain_matrix: np.ndarray
    max_concentrations: np.ndarray
    glass: np.ndarray = np.zeros(3)


def optical_density(image: np.ndarray) -> np.ndarray:
    """Optical density `ln(I0 / (I + 1))`, `I0` = 240, of a uint8 array; float32 of its shape, -0.06 to 5.48.

    Source: Beer-Lambert; Macenko 2009, equation 1. Deviation: the `+ 1` keeps black finite, as in public codes.
    """
    return DENSITY[image]


def sample_density(image: np.ndarray) -> np.ndarray:
    """Optical densities `(3, N)`, channels first, of evenly spread pixels of an image `(H, W, 3)`."""
    return channels_first(sample(image))


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """Optical densities `(3, N)` of uint8 pixels `(N, 3)`."""
    return np.stack(cv2.split(cv2.LUT(pixels[None], DENSITY))).reshape(3, -1)


def tissue_mask(density: np.ndarray) -> np.ndarray:
    """Which of the densities `(3, ...)` reach `TRANSPARENT` in every channel; bool `(...)`. Source: Macenko 2009."""
    red, green, blue = density >= TRANSPARENT
    return red & green & blue


def absorbing_mask(density: np.ndarray) -> np.ndarray:
    """Which of the densities `(3, ...)` reach `TRANSPARENT` on average over the channels; bool `(...)`.

    Pure eosin hardly absorbs red light: `tissue_mask` drops it, this keeps it.
    """
    return density.sum(axis=0) >= 3 * TRANSPARENT


def glass_mask(density: np.ndarray) -> np.ndarray:
    """Which of the densities `(3, ...)` are brighter than `GLASS_LEVEL` in every channel; bool `(...)`."""
    red, green, blue = density < DENSITY[GLASS_LEVEL]
    return red & green & blue


def glass_density(density: np.ndarray) -> np.ndarray:
    """Density `(3,)` of the unstained glass in `(3, N)`; 0, that is `I0`, where there is too little glass to tell.

    It is the 10 % quantile over the glass pixels: the darker ones may hold pale tissue, out of focus or hardly stained.
    """
    glass = glass_mask(density)
    if np.count_nonzero(glass) < max(1, MIN_GLASS * glass.size):
        return np.zeros(3)
    return _quantile(density[:, glass], 0.1)


def ink_mask(density: np.ndarray) -> np.ndarray:
    """Which of the densities `(3, ...)` belong to pen marks (green, blue, black); bool `(...)`.

    Haematoxylin and eosin both absorb green light most. Ink is dark and absorbs green clearly less than red,
    hardly any blue, or all three nearly completely. Source: limits measured on the book's three data sets.
    """
    dark = np.nonzero(density.sum(axis=0) > INK_DARK)
    red, green, blue = (channel[dark] for channel in density)
    ink = green < INK_GREEN * red
    for green_share, blue_share in INK_GREEN_BLUE:
        ink |= (green < green_share * red) & (blue < blue_share * red)
    ink |= np.minimum(np.minimum(red, green), blue) > INK_DARK
    mask = np.zeros(density.shape[1:], bool)
    mask[dark] = ink
    return mask


def has_ink(density: np.ndarray) -> bool:
    """Whether more than `MAX_INK` of the densities `(3, N)` belong to pen marks."""
    return bool(ink_mask(density).mean() > MAX_INK)


def macenko_stain_matrix(density: np.ndarray, *, percentile: float = 1.0) -> np.ndarray:
    """The two stain vectors `(2, 3)` of tissue densities `(3, N)` by Macenko's geometry, haematoxylin first.

    Pixels are projected on the plane of the two largest principal axes; the extreme directions there (1st and
    99th percentile of the angle) are the stains.

    Raises:
        NotNormalisable: no contrast, or no plane in the densities.

    Source: Macenko 2009, steps 3 to 8. Deviations: the first axis is turned to positive densities, without which
    the angle wraps around at 180 degrees; the tangent, which has the same order there, replaces the angle.
    """
    centred = density - density.mean(axis=1, keepdims=True)
    variances, axes = np.linalg.eigh(np.einsum("in,jn->ij", centred, centred) / density.shape[1])
    if variances[2] < MIN_VARIANCE:
        raise NotNormalisable("no contrast: the tissue has one colour")
    if variances[0] > MAX_FLATNESS * variances[1]:
        raise NotNormalisable("no stain plane: the colours scatter in all directions")
    plane = axes[:, [2, 1]].T * (1 if axes[:, 2].sum() > 0 else -1)
    along, across = _product(plane, density)
    ratio = (across / np.maximum(along, 1e-3))[None]
    tangents = [_quantile(ratio, percentile / 100)[0], _quantile(ratio, 1 - percentile / 100)[0]]
    stains = np.outer([1, 1], plane[0]) + np.outer(tangents, plane[1])
    return _haematoxylin_first(stains / np.linalg.norm(stains, axis=1, keepdims=True))


def vahadane_stain_matrix(density: np.ndarray, *, sparsity: float = SPARSITY, pixels: int = 4000) -> np.ndarray:
    """The two stain vectors `(2, 3)` of tissue densities `(3, N)` by sparse non-negative factorisation.

    Minimises the mean over pixels of `1/2 |v - W c|^2 + sparsity * |c|_1` over non-negative unit columns of `W`
    and non-negative `c`. For two stains the best `c` has a closed form (`sparse_codes`), which leaves the four
    spherical angles of `W` to scipy's SLSQP; it starts from Macenko's vectors.

    Raises:
        NotNormalisable: Macenko's estimate, the start, finds no contrast or no plane.

    Source: Vahadane 2016, equations 4 and 5. Deviations: a sparsity of 0.003 instead of 0.1, which pulls the two
    vectors together (chosen on phantom tiles with and without camera noise); variable projection instead of the
    alternation of SPAMS (same objective, far fewer steps); at most about `pixels` evenly spread pixels.
    """
    from scipy.optimize import minimize  # half a second, which `predict` would wait for

    start = np.maximum(macenko_stain_matrix(density), 1e-3)
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    chosen = np.ascontiguousarray(density[:, :: max(1, density.shape[1] // pixels)])

    def loss(angles: np.ndarray) -> tuple[float, np.ndarray]:
        stains, by_polar, by_azimuth = _from_angles(angles)
        codes = sparse_codes(chosen, stains, sparsity)
        residual = chosen - _product(stains.T, codes)
        # Danskin's theorem: at the optimal codes the slope is that of the dictionary alone.
        slope = -np.einsum("in,jn->ij", codes, residual)
        gradient = np.concatenate([(slope * by_polar).sum(axis=1), (slope * by_azimuth).sum(axis=1)])
        value = 0.5 * np.square(residual).sum(dtype=np.float64) + sparsity * codes.sum(dtype=np.float64)
        return value / chosen.shape[1], gradient / chosen.shape[1]

    angles = np.concatenate([np.arccos(start[:, 2]), np.arctan2(start[:, 1], start[:, 0])])
    # Angles within a quarter turn are non-negativity.
    optimum = minimize(loss, angles, jac=True, method="SLSQP", bounds=[(0, np.pi / 2)] * 4, options={"ftol": 1e-9})
    return _haematoxylin_first(_from_angles(optimum.x)[0])


def _from_angles(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors `(2, 3)` of two polar and two azimuthal angles, and their derivatives by either kind."""
    (sin, x), (cos, y) = np.sin(angles.reshape(2, 2)), np.cos(angles.reshape(2, 2))
    vectors = np.column_stack([sin * y, sin * x, cos])
    return vectors, np.column_stack([cos * y, cos * x, -sin]), np.column_stack([-sin * x, sin * y, 0 * sin])


def sparse_codes(density: np.ndarray, stains: np.ndarray, sparsity: float) -> np.ndarray:
    """Non-negative lasso codes `(2, N)` of densities `(3, N)` for two unit stain vectors `(2, 3)`, exactly.

    Either both stains are active, one, or none. Where the solution for both is not feasible, one alone is
    optimal, namely the one that correlates more.
    """
    gain = _product(stains, density) - np.float32(sparsity)
    overlap = float(stains[0] @ stains[1])
    both = (gain - overlap * gain[::-1]) / max(1 - overlap**2, 1e-9)
    alone = np.where(gain >= gain[::-1], np.maximum(gain, 0), 0)
    return np.where((both[0] >= 0) & (both[1] >= 0), both, alone)


def fit_stains(
    density: np.ndarray, estimate: Callable = macenko_stain_matrix, mask: Callable = tissue_mask
) -> StainFit:
    """Stain vectors of the densities `(3, N)` in `mask`, by `estimate`; 99th percentiles of all pixels' amounts.

    Raises:
        NotNormalisable: too little tissue, pen ink, or vectors that are not haematoxylin and eosin.
    """
    tissue = mask(density)
    if np.count_nonzero(tissue) < max(MIN_TISSUE_PIXELS, MIN_TISSUE * tissue.size):
        raise NotNormalisable("too little tissue")
    if has_ink(density):
        raise NotNormalisable("pen ink")
    stains = estimate(np.stack([channel[tissue] for channel in density]))
    angle = angle_between(stains[0], stains[1])
    if not STAIN_ANGLE[0] <= angle <= STAIN_ANGLE[1]:
        raise NotNormalisable("one stain only" if angle < STAIN_ANGLE[0] else "stain vectors too far apart")
    if max(map(angle_between, stains, REFERENCE_STAINS)) > MAX_DRIFT or stains.min() < MIN_ABSORPTION:
        raise NotNormalisable("not the colours of haematoxylin and eosin")
    return StainFit(stains, _quantile(_product(np.linalg.pinv(stains.T), density), 0.99))


def is_rendered_with(density: np.ndarray, reference: StainFit) -> bool:
    """Whether densities `(3, N)` are already normalised: in the reference's stain plane, with its amounts.

    Camera images scatter around their own plane and miss the reference's by 0.025 and more; a normalised tile
    leaves it by the rounding to grey levels, below 0.008. Without this the changed tissue mask of a second pass
    would shift the colours. Source: limits measured on the book's three data sets.
    """
    stained = density - reference.glass.astype(np.float32)[:, None]
    few = stained[:, :: max(1, stained.shape[1] // 5000)]
    tissue = few[:, tissue_mask(few)]
    if not tissue.size:
        return False
    # Pale tissue may be blended with glass that was put back.
    total = tissue.sum(axis=0)
    dark = tissue[:, total >= np.median(total)]
    normal = np.cross(*reference.stain_matrix)[None]
    if _quantile(np.abs(_product(normal / np.linalg.norm(normal), dark)), 0.75)[0] > IN_PLANE:
        return False
    amounts = _product(np.linalg.pinv(reference.stain_matrix.T), stained)
    change = np.abs(_quantile(amounts, 0.99) / reference.max_concentrations - 1)
    # Where the first pass clipped a channel to white, one stain lost some of its amount.
    clipped = (density.min(axis=0) == DENSITY[255]).any()
    return bool((change.min() if clipped else change.max()) < SAME_AMOUNT)


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between two vectors, degrees."""
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def _haematoxylin_first(stains: np.ndarray) -> np.ndarray:
    # Haematoxylin, the bluer, absorbs more red light.
    return stains if stains[0, 0] > stains[1, 0] else stains[::-1].copy()


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Matrix product in float32 without BLAS, whose threads cost more than so thin a product itself."""
    return np.einsum("ij,jn->in", a.astype(np.float32, copy=False), b.astype(np.float32, copy=False))


def _quantile(rows: np.ndarray, q: float) -> np.ndarray:
    """The value at fraction `q` of every row `(K, N)`, nearest rank: numpy's interpolation takes three times longer."""
    rank = round(q * (rows.shape[1] - 1))
    return np.array([np.partition(row, rank)[rank] for row in rows])


def pool(tiles: Iterable[np.ndarray]) -> np.ndarray:
    """About `SAMPLE` pixels `(N, 3)`, evenly spread over all tiles of a slide but those with ink.

    Raises:
        NotNormalisable: every tile has ink.
    """
    clean = [pixels for pixels in map(sample, tiles) if not has_ink(channels_first(pixels))]
    if not clean:
        raise NotNormalisable("pen ink")
    return np.ascontiguousarray(sample(np.concatenate(clean)))


def sample(image: np.ndarray) -> np.ndarray:
    """At most about `SAMPLE` pixels `(N, 3)`; the odd stride walks through all columns of an even width."""
    pixels = image.reshape(-1, 3)
    stride = len(pixels) // SAMPLE
    return pixels if stride < 1 else pixels[:: stride | 1]
