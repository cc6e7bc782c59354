"""From image files to the square tiles that the network sees: decode, normalise colour, resize, views.

A field is squeezed to a square (both sides to `size`, Pillow's antialiased bicubic), as the real subset was. A
squeezed field keeps its shape under four of the eight symmetries of the square (D4); a turn by 90 degrees would
transpose the squeeze, so it is for data sets of square fields only (each data set's module says its `VIEWS`).
"""

import struct
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from histotransfer.errors import HistotransferError
from histotransfer.stain import Fallback, Normaliser, StainJitter

MAX_PIXELS = 50_000_000  # a field has 0.3 million; more is a whole slide or a header that lies
MIN_SIDE = 16
COLOUR_MODES = {"RGB", "RGBA", "P", "CMYK", "YCbCr"}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MEAN = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
HASH_BYTES = 16
KEY_BYTES = HASH_BYTES + 1
JITTER_DRAWS = 4


class Source(Protocol):
    """What batches are drawn from: N items, each in `views` views; view 0 is upright."""

    views: int

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """Item ``rows[i]`` in view ``views[i]``, as one float32 batch."""


class KeyedSource(Source, Protocol):
    """A source whose items have keys: equal keys mean equal items, in any source."""

    def keys(self, rows: np.ndarray, views: np.ndarray) -> list[bytes]:
        """`KEY_BYTES` per item."""


def decode(path: str | Path) -> np.ndarray:
    """Read a picture as ``(H, W, 3)`` uint8 RGB.

    16-bit colour is reduced to 8 bits and a fully opaque alpha channel is dropped; a grey picture is refused, since
    everything here rests on colour.

    Raises:
        HistotransferError: missing, not an image, damaged, too large, too small, grey, or partly transparent.
    """
    try:
        if Path(path).stat().st_size == 0:
            raise HistotransferError(f"{path}: empty file")
        # Pillow warns of size (held to MAX_PIXELS below) and of damage; a bad picture is one line, ours.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise HistotransferError(
                    f"{path}: {width}x{height} pixels, more than {MAX_PIXELS:,}; cut fields from it"
                )
            if min(width, height) < MIN_SIDE:
                raise HistotransferError(f"{path}: {width}x{height} pixels are too few to show tissue")
            if image.mode not in COLOUR_MODES:
                raise HistotransferError(f"{path}: grey picture (mode {image.mode}); a colour picture is needed")
            picture = image.convert("RGBA" if image.has_transparency_data else "RGB")
            if picture.mode == "RGBA" and np.asarray(picture)[..., 3].min() < 255:
                raise HistotransferError(f"{path}: partly transparent; flatten it onto its background first")
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise HistotransferError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise HistotransferError(f"{path}: not an image") from error
    except Image.DecompressionBombError as error:
        raise HistotransferError(f"{path}: more than {MAX_PIXELS:,} pixels; cut fields from it") from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:  # what Pillow raises for damaged files
        raise HistotransferError(f"{path}: damaged or unreadable ({' '.join(str(error).split())})") from error


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Squeeze ``(H, W, 3)`` uint8 to ``(size, size, 3)``, bicubic with antialiasing."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def load_tiles(
    paths: Sequence[str | Path], size: int, normaliser: Normaliser, *, progress: bool = False
) -> tuple[np.ndarray, list[Fallback]]:
    """Decode images, resize them and normalise their colour.

    Args:
        paths: N image files.
        size: pixels per side.
        normaliser: one of `histotransfer.stain`.
        progress: show a bar.

    Returns:
        ``(N, size, size, 3)`` uint8, and the images that could not be normalised and were left as they are.

    Raises:
        HistotransferError: a file that `decode` refuses.
    """
    tiles = np.empty((len(paths), size, size, 3), dtype=np.uint8)
    fallbacks: list[Fallback] = []
    for i, path in enumerate(tqdm(paths, desc="tiles", unit="image", disable=not progress, leave=False)):
        image = resize(decode(path), size)
        tiles[i] = normaliser.transform(image, names=[str(path)], fallbacks=fallbacks)
    return tiles, fallbacks


def symmetric_views(paths: Sequence[str | Path]) -> int:
    """How many symmetric views a user's images allow: 8 if all files are square, else 4."""
    for path in paths:
        with Image.open(path) as image:
            if image.width != image.height:
                return 4
    return 8


def view(batch: Tensor, number: int) -> Tensor:
    """One of the eight symmetries of the square applied to ``(..., H, W)``.

    Bit 0 flips left to right, bit 1 flips top to bottom, bit 2 transposes; so views 0 to 3 (identity, two flips, half
    turn) keep the aspect and 4 to 7 are the quarter turns and the two diagonal flips.
    """
    if number & 1:
        batch = batch.flip(-1)
    if number & 2:
        batch = batch.flip(-2)
    if number & 4:
        batch = batch.transpose(-1, -2)
    return batch


class TileSource:
    """Tiles as network input: batches of float32, ImageNet-normalised, in a chosen view each.

    Args:
        tiles: ``(N, S, S, 3)`` uint8.
        views: 4 for squeezed fields, 8 for square pixels, 1 for upright only.
    """

    def __init__(self, tiles: np.ndarray, views: int = 4):
        self.tiles, self.views = tiles, views

    def __len__(self) -> int:
        return len(self.tiles)

    def batch(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """``(len(rows), 3, S, S)`` float32, row i in view ``views[i]``."""
        return network_input(self.tiles[rows], views)

    def keys(self, rows: np.ndarray, views: np.ndarray) -> list[bytes]:
        """`KEY_BYTES` per item: a hash of the tile's pixels as the network sees them, and the view."""
        return [self.hashes[row] + bytes([number]) for row, number in zip(rows, views, strict=True)]

    @cached_property
    def hashes(self) -> list[bytes]:
        """Of each tile's pixels and shape."""
        shape = str(self.tiles.shape[1:]).encode()
        return [blake2b(tile.tobytes(), digest_size=HASH_BYTES, key=shape).digest() for tile in self.tiles]


class JitteredSource:
    """Tiles whose views are also seeded draws of stain jitter: draw 0 is the tile itself.

    A fixed number of draws replaces endless jitter, so that the output of a frozen prefix can be stored for each draw.
    View v is symmetric view ``v % source.views`` of draw ``v // source.views``; view 0 is the tile upright, as it is.
    """

    def __init__(self, source: TileSource, jitter: StainJitter, draws: int = JITTER_DRAWS):
        self.source, self.jitter = source, jitter
        self.views = source.views * draws

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """As `TileSource.batch`."""
        draws, views = np.divmod(views, self.source.views)
        tiles = [self.source.tiles[row] for row in rows]
        drawn = [self.jitter(tile, int(draw)) if draw else tile for tile, draw in zip(tiles, draws, strict=True)]
        return network_input(np.stack(drawn), views)

    def keys(self, rows: np.ndarray, views: np.ndarray) -> list[bytes]:
        """As `TileSource.keys`; a draw is named by the jitter's fingerprint and its number, without drawing it."""
        keys = self.source.keys(rows, views % self.source.views)
        return [
            self._drawn(key[:HASH_BYTES], draw) + key[HASH_BYTES:] if draw else key
            for key, draw in zip(keys, views // self.source.views, strict=True)
        ]

    def _drawn(self, tile: bytes, draw: int) -> bytes:
        return blake2b(f"{self.jitter.fingerprint()} {draw} ".encode() + tile, digest_size=HASH_BYTES).digest()


def augmented_source(tiles: np.ndarray, views: int, augmentation: str) -> TileSource | JitteredSource:
    """Tiles in the views that an augmentation draws from.

    Args:
        tiles: ``(N, S, S, 3)`` uint8.
        views: symmetric views that their shape allows.
        augmentation: ``none`` (upright only), ``views`` or ``views+stain``.
    """
    source = TileSource(tiles, 1 if augmentation == "none" else views)
    return JitteredSource(source, StainJitter()) if augmentation == "views+stain" else source


def mean_over_views(network: Callable[[Tensor], Tensor], source: Source, rows: np.ndarray) -> Tensor:
    """Logits ``(len(rows), classes)`` of some items: the mean over all views of each.

    Args:
        network: images ``(N, 3, S, S)`` to logits ``(N, classes)``.
        source: of the images.
        rows: positions in it.
    """
    return torch.stack([network(source.batch(rows, np.full_like(rows, view))) for view in range(source.views)]).mean(0)


class Subset:
    """Some items of a source, renumbered from 0: `rows` are their positions in it."""

    def __init__(self, source: Source, rows: np.ndarray):
        self.source, self.rows = source, rows
        self.views = source.views

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """As the source's."""
        return self.source.batch(self.rows[rows], views)


def network_input(tiles: np.ndarray, views: np.ndarray) -> Tensor:
    """``(N, S, S, 3)`` uint8, each in its view, to ``(N, 3, S, S)`` float32 with ImageNet's mean and deviation."""
    x = torch.from_numpy(tiles).permute(0, 3, 1, 2)
    x = torch.stack([view(tile, int(number)) for tile, number in zip(x, views, strict=True)])
    return ((x.float() / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)
