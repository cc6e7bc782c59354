"""One interface, and behind it Macenko, Reinhard, Vahadane and no normalisation."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Self, TypeGuard

import cv2
import numpy as np

from histotransfer.errors import HistotransferError
from histotransfer.stain.density import (
    REFERENCE_CONCENTRATIONS,
    REFERENCE_STAINS,
    SAMPLE,
    NotNormalisable,
    StainFit,
    absorbing_mask,
    channels_first,
    fit_stains,
    glass_density,
    has_ink,
    is_rendered_with,
    macenko_stain_matrix,
    optical_density,
    pool,
    sample,
    sample_density,
    tissue_mask,
    vahadane_stain_matrix,
)
from histotransfer.stain.maps import MAX_GLASS_SHIFT, glass_shift, keep_glass, map_density, map_lab, to_lab

# CIELAB mean and standard deviation averaged over ~50,000 tiles of ~450 TCGA slides: slideflow's Reinhard fit "v3".
REFERENCE_LAB_MEAN = np.array([65.22132, 28.934267, -14.142519])
REFERENCE_LAB_STD = np.array([15.800227, 9.263783, 6.0213304])

MAX_GAIN = 8.0  # largest stretch of a concentration or a colour axis
# What counts as normalised already, in Reinhard: CIELAB units of the means, the relative change of the spreads.
SAME_MEAN, SAME_STD = 1.0, 0.04
# What a normalised tile may miss the reference by where colours were clipped to the gamut.
CLIPPED_MEAN, CLIPPED_STD = 1.25, 0.35


class Fallback(NamedTuple):
    """A tile that was returned unchanged: its name (or its position) and the guard that it failed."""

    name: str
    reason: str


class LabFit(NamedTuple):
    """CIELAB mean `(3,)` and standard deviation `(3,)`; L in 0..100."""

    mean: np.ndarray
    std: np.ndarray


class Normaliser(ABC):
    """The interface of every normaliser; each class implements how it estimates, maps and names its reference.

    `transform` estimates for each image by itself, as the training pipeline does; `transform_slide` estimates once for
    all tiles of a slide. Neither fails on a valid image or keeps state, so one fitted normaliser serves many threads.
    """

    name: str

    def fit(self, target: np.ndarray | Iterable[np.ndarray]) -> Self:
        """Take the reference from one image, or the median of the references of several (training images).

        Args:
            target: uint8 RGB `(H, W, 3)`; or `(N, H, W, 3)`, a list or a generator of images. Images that fail a guard
                are left out of a median.

        Raises:
            HistotransferError: not uint8 RGB, or no image that passes the guards.
        """
        fits, reasons = [], Counter[str]()
        for image in [target] if _is_single(target) else target:
            try:
                fits.append(self._estimate(sample(checked(image))))
            except NotNormalisable as reason:
                reasons[str(reason)] += 1
        if not fits:
            raise HistotransferError(f"{self.name}: no target to fit ({_listed(reasons) or 'no images given'})")
        self._adopt([np.median(part, axis=0) for part in zip(*fits, strict=True)])
        return self

    def fit_slide(self, tiles: Sequence[np.ndarray]) -> Self:
        """Take the reference from all tiles of one slide pooled, the level of its glass included.

        Raises:
            HistotransferError: as `fit`.
        """
        tiles = _listed_images(tiles)
        try:
            self._adopt(self._estimate_slide(pool(tiles)))
        except NotNormalisable as reason:
            raise HistotransferError(f"{self.name}: no slide to fit ({reason})") from reason
        return self

    def normalise(self, image: np.ndarray) -> tuple[np.ndarray, str]:
        """The normalised image and `""`; or the image unchanged and the reason why it cannot be normalised.

        Raises:
            HistotransferError: not a uint8 RGB array `(H, W, 3)` with at least one pixel.
        """
        return _attempt(self._map, checked(image))

    def transform(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        *,
        names: Sequence[str] | None = None,
        fallbacks: list[Fallback] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Normalise an image `(H, W, 3)`, a batch `(N, H, W, 3)` or a sequence of images: uint8 RGB in, the same out.

        Every image is estimated alone; the others do not affect it.

        Args:
            images: one image or several; sizes may differ in a sequence.
            names: names of the images in `fallbacks`; their positions if left out.
            fallbacks: a list to which every image that was returned unchanged is added.

        Raises:
            HistotransferError: an image that is not uint8 RGB, no images, or not as many names as images.
        """
        return _transform_each(self._map, images, names, fallbacks)

    def transform_slide(
        self,
        tiles: np.ndarray | Sequence[np.ndarray],
        *,
        names: Sequence[str] | None = None,
        fallbacks: list[Fallback] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Normalise all tiles of one slide with one estimate from their pooled pixels.

        A slide shows enough nuclei, stroma and glass to estimate its stains, their strength and the level of its light;
        a tile may not. Arguments, result and errors are those of `transform`. Tiles with pen ink come back unchanged,
        and so do all tiles of a slide that fails a guard.
        """
        try:
            mapping = self._slide_mapping(_listed_images(tiles))
        except NotNormalisable as refused:
            reason = str(refused)

            def mapping(_: np.ndarray) -> np.ndarray:
                raise NotNormalisable(reason)

        return _transform_each(mapping, tiles, names, fallbacks)

    def stain_matrix(self, image: np.ndarray) -> np.ndarray:
        """Stain vectors `(2, 3)` of an image, unit rows haematoxylin and eosin; published ones if none are estimated.

        Raises:
            HistotransferError: not uint8 RGB, or the image fails a guard (the message is the reason).
        """
        checked(image)
        return REFERENCE_STAINS / np.linalg.norm(REFERENCE_STAINS, axis=1, keepdims=True)

    def concentrations(self, image: np.ndarray) -> np.ndarray:
        """Amounts `(H, W, 2)` of haematoxylin and eosin, float32, least squares: noise goes below 0.

        Raises:
            HistotransferError: as `stain_matrix`.
        """
        inverse = np.linalg.pinv(self.stain_matrix(image)).astype(np.float32)
        return optical_density(image) @ inverse

    def fingerprint(self) -> str:
        """A short key of method and reference: normalisers with equal keys give equal output."""
        numbers = [format(x, ".9g") for part in self._reference() for x in np.ravel(part)]
        if not numbers:
            return self.name
        return f"{self.name}-{hashlib.sha256(f'v{VERSION} {numbers}'.encode()).hexdigest()[:12]}"

    def reference_parts(self) -> list[list]:
        """The fitted reference as plain lists, to be stored beside weights; `normaliser` reads it back."""
        return [part.tolist() for part in self._reference()]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.fingerprint()}>"

    @abstractmethod
    def _map(self, image: np.ndarray) -> np.ndarray:
        """One image, normalised by an estimate from it alone."""

    @abstractmethod
    def _slide_mapping(self, tiles: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        """What normalises each tile of a slide, by one estimate from all of them."""

    @abstractmethod
    def _estimate(self, pixels: np.ndarray) -> tuple:
        """The parts of a reference, from pixels."""

    def _estimate_slide(self, pixels: np.ndarray) -> tuple:
        return self._estimate(pixels)

    @abstractmethod
    def _adopt(self, reference: Sequence[np.ndarray]) -> None:
        """Use these parts as the reference."""

    @abstractmethod
    def _reference(self) -> tuple:
        """The parts of the reference."""


class NoNormalisation(Normaliser):
    """Colours as scanned, behind the interface of the methods."""

    name = "none"

    def _map(self, image: np.ndarray) -> np.ndarray:
        return image.copy()

    def _slide_mapping(self, tiles: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return np.copy

    def _estimate(self, pixels: np.ndarray) -> tuple:
        return (np.zeros(0),)

    def _adopt(self, reference: Sequence[np.ndarray]) -> None:
        pass

    def _reference(self) -> tuple:
        return ()


class Macenko(Normaliser):
    """Stain vectors from the extreme angles of the stain plane, amounts matched at their 99th percentile.

    Unfitted, the reference is the published one. Source: Macenko 2009. Deviation: where the linear map would tint the
    tile's glass (over `MAX_GLASS_SHIFT`), the glass stays as it was. A slide's densities are those above its own glass,
    and its vectors come from all pixels that absorb (`absorbing_mask`).
    """

    name = "macenko"
    _estimator: Callable[[np.ndarray], np.ndarray] = staticmethod(macenko_stain_matrix)
    _mask = staticmethod(tissue_mask)

    def __init__(self) -> None:
        self.reference = StainFit(REFERENCE_STAINS, REFERENCE_CONCENTRATIONS)

    def stain_matrix(self, image: np.ndarray) -> np.ndarray:
        return self._estimate(sample(checked(image))).stain_matrix

    def _map(self, image: np.ndarray) -> np.ndarray:
        density = sample_density(image)
        if is_rendered_with(density, self.reference):
            return image.copy()
        return self._render(image, density, fit_stains(density, self._estimator, self._mask))

    def _slide_mapping(self, tiles: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        pixels = pool(tiles)
        if is_rendered_with(channels_first(pixels), self.reference):
            return np.copy
        source = self._estimate_slide(pixels)

        def mapping(tile: np.ndarray) -> np.ndarray:
            density = sample_density(tile)
            if has_ink(density):
                raise NotNormalisable("pen ink")
            return self._render(tile, density, source)

        return mapping

    def _render(self, image: np.ndarray, density: np.ndarray, source: StainFit) -> np.ndarray:
        gain = self.reference.max_concentrations / np.maximum(source.max_concentrations, 1e-6)
        if not 1 / MAX_GAIN <= gain.min() <= gain.max() <= MAX_GAIN:
            raise NotNormalisable("staining too weak or too strong to match")
        matrix = self.reference.stain_matrix.T @ np.diag(gain) @ np.linalg.pinv(source.stain_matrix.T)
        offset = self.reference.glass - matrix @ source.glass
        mapped = map_density(image, matrix, offset)
        if glass_shift(density, lambda colour: map_density(colour, matrix, offset)) > MAX_GLASS_SHIFT:
            return keep_glass(image, mapped)
        return mapped

    def _estimate(self, pixels: np.ndarray) -> StainFit:
        return fit_stains(channels_first(pixels), self._estimator, self._mask)

    def _estimate_slide(self, pixels: np.ndarray) -> StainFit:
        density = channels_first(pixels)
        glass = glass_density(density)
        stained = density - glass.astype(np.float32)[:, None]
        return fit_stains(stained, self._estimator, absorbing_mask)._replace(glass=glass)

    def _adopt(self, reference: Sequence[np.ndarray]) -> None:
        stains, amounts, glass = reference
        self.reference = StainFit(stains / np.linalg.norm(stains, axis=1, keepdims=True), amounts, glass)

    def _reference(self) -> StainFit:
        return self.reference


class Vahadane(Macenko):
    """Stain vectors by sparse non-negative factorisation; otherwise as Macenko, with the same published reference.

    Source: Vahadane 2016. Deviation: amounts are least squares under the estimated vectors, not sparse codes, so that
    the whole method is one linear map of densities and no structure is lost to the sparsity.
    """

    name = "vahadane"
    _estimator = staticmethod(vahadane_stain_matrix)
    _mask = staticmethod(absorbing_mask)


class Reinhard(Normaliser):
    """Shift and scale each CIELAB channel of a tile so that its mean and standard deviation become the reference's.

    Unfitted, the reference is slideflow's average of TCGA tiles. A tile whose glass would be tinted is left alone: the
    mean of glass and tissue describes neither. Source: Reinhard 2001, equations 10 and 11. Deviation: CIELAB, as all
    histology codes have it, for the paper's l-alpha-beta.
    """

    name = "reinhard"

    def __init__(self) -> None:
        self.reference = LabFit(REFERENCE_LAB_MEAN, REFERENCE_LAB_STD)

    def _map(self, image: np.ndarray) -> np.ndarray:
        return self._render(image, *self._affine(sample(image)))

    def _slide_mapping(self, tiles: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        scale, shift = self._affine(pool(tiles))
        return lambda tile: self._render(tile, scale, shift)

    def _render(self, image: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
        if glass_shift(sample_density(image)[:, ::4], lambda colour: map_lab(colour, scale, shift)) > MAX_GLASS_SHIFT:
            raise NotNormalisable("glass would be tinted")
        return map_lab(image, scale, shift)

    def _affine(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        source = self._estimate(pixels)
        if self._is_done(source, pixels):
            return np.ones(3), np.zeros(3)
        scale = self.reference.std / source.std
        if scale.max() > MAX_GAIN:
            raise NotNormalisable("no contrast: the tile has hardly more than one colour")
        return scale, self.reference.mean - scale * source.mean

    def _is_done(self, source: LabFit, pixels: np.ndarray) -> bool:
        off = np.abs(source.mean - self.reference.mean).max()
        stretch = np.abs(self.reference.std / source.std - 1).max()
        if off > CLIPPED_MEAN or stretch > CLIPPED_STD:
            return False
        clipped = ((pixels == 0) | (pixels == 255)).any(axis=1).mean() > 0.01
        return bool(clipped or (off < SAME_MEAN and stretch < SAME_STD))

    def _estimate(self, pixels: np.ndarray) -> LabFit:
        # Moments settle sooner than percentiles do.
        return _lab_moments(np.ascontiguousarray(pixels[::2]) if len(pixels) > SAMPLE // 2 else pixels)

    def _adopt(self, reference: Sequence[np.ndarray]) -> None:
        self.reference = LabFit(*reference)

    def _reference(self) -> LabFit:
        return self.reference


def _lab_moments(pixels: np.ndarray) -> LabFit:
    mean, std = cv2.meanStdDev(to_lab(pixels[None]))
    if std.min() < 0.25:
        raise NotNormalisable("no contrast: the tile has hardly more than one colour")
    return LabFit(mean[:, 0], std[:, 0])


def _attempt(mapping: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> tuple[np.ndarray, str]:
    try:
        return mapping(image), ""
    except NotNormalisable as reason:
        return image.copy(), str(reason)


def _transform_each(
    mapping: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray | Sequence[np.ndarray],
    names: Sequence[str] | None,
    fallbacks: list[Fallback] | None,
) -> np.ndarray | list[np.ndarray]:
    batch = _listed_images(images)
    names = [str(i) for i in range(len(batch))] if names is None else names
    if len(names) != len(batch):
        raise HistotransferError(f"stain: {len(batch)} images but {len(names)} names")
    done = []
    for image, name in zip(batch, names, strict=True):
        out, reason = _attempt(mapping, image)
        done.append(out)
        if reason and fallbacks is not None:
            fallbacks.append(Fallback(name, reason))
    if _is_single(images):
        return done[0]
    return np.stack(done) if isinstance(images, np.ndarray) else done


def _is_single(images: np.ndarray | Iterable[np.ndarray]) -> TypeGuard[np.ndarray]:
    return isinstance(images, np.ndarray) and images.ndim == 3


def _listed_images(images: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    batch = [images] if _is_single(images) else list(images)
    if not batch:
        raise HistotransferError("stain: no images given")
    return [checked(image) for image in batch]


VERSION = 3  # part of every fingerprint: raise it when an output changes
NORMALISERS = {kind.name: kind for kind in (NoNormalisation, Macenko, Reinhard, Vahadane)}


def normaliser(name: str, reference: Sequence[Sequence] = ()) -> Normaliser:
    """The normaliser of that name (a key of `NORMALISERS`).

    Args:
        name: of the method.
        reference: as `Normaliser.reference_parts` returns it; if empty, the published one.

    Raises:
        HistotransferError: an unknown name, or a reference of another method.
    """
    if name not in NORMALISERS:
        raise HistotransferError(f"stain normaliser {name!r} is not known; choose one of {', '.join(NORMALISERS)}")
    method = NORMALISERS[name]()
    if reference:
        needed, given = ([_shape(part) for part in parts] for parts in (method.reference_parts(), reference))
        if given != needed:
            raise HistotransferError(f"reference: parts of shapes {needed} are what {name} needs, not these")
        method._adopt([np.array(part) for part in reference])
    return method


def _shape(part: Sequence) -> tuple[int, ...] | None:
    """Of nested lists; None if they are ragged."""
    try:
        return np.shape(part)
    except ValueError:
        return None


def count_reasons(fallbacks: Iterable[Fallback]) -> dict[str, int]:
    """How many tiles each guard refused, most frequent first."""
    return dict(Counter(fallback.reason for fallback in fallbacks).most_common())


def checked(image: np.ndarray) -> np.ndarray:
    """The image itself, contiguous.

    Raises:
        HistotransferError: not a uint8 RGB array `(H, W, 3)` with at least one pixel.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        actual = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise HistotransferError(f"stain: an image must be a uint8 RGB array (height, width, 3), not {actual}")
    if not image.size:
        raise HistotransferError(f"stain: an image must have pixels, this one has shape {image.shape}")
    return np.ascontiguousarray(image)


def _listed(reasons: Counter) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in reasons.items())
