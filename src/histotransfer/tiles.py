"""From image files to the square tiles that the network sees: decode, normalise colour, resize, views.

A field is squeezed to a square (both sides to `size`, Pillow's antialiased bicubic), as the real subset was. A
squeezed field keeps its shape under four of the eight symmetries of the square (D4); a turn by 90 degrees would
transpose the squeeze, so it is for data sets of square fields only (each data set's module says its `VIEWS`).

PyTorch is imported when a source first gives tensors: a prediction with OpenVINO takes arrays and does without it.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from tqdm import tqdm

from histotransfer.pictures import decode, resize
from histotransfer.stain import Fallback, Normaliser, StainJitter

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WHITE, MEAN, STD = (np.array(value, np.float32) for value in (255, IMAGENET_MEAN, IMAGENET_STD))
HASH_BYTES = 16
KEY_BYTES = HASH_BYTES + 1
JITTER_DRAWS = 4


class Source(Protocol):
    """What batches are drawn from: N items, each in `views` views; view 0 is upright."""

    views: int

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, views: np.ndarray) -> "Tensor":
        """Item ``rows[i]`` in view ``views[i]``, as one float32 batch."""


class KeyedSource(Source, Protocol):
    """A source whose items have keys: equal keys mean equal items, in any source."""

    def keys(self, rows: np.ndarray, views: np.ndarray) -> list[bytes]:
        """`KEY_BYTES` per item."""


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


def view(tile: np.ndarray, number: int) -> np.ndarray:
    """One of the eight symmetries of the square applied to a tile ``(H, W, ...)``.

    Bit 0 flips left to right, bit 1 flips top to bottom, bit 2 transposes; so views 0 to 3 (identity, two flips, half
    turn) keep the aspect and 4 to 7 are the quarter turns and the two diagonal flips.
    """
    if number & 1:
        tile = tile[:, ::-1]
    if number & 2:
        tile = tile[::-1]
    if number & 4:
        tile = tile.swapaxes(0, 1)
    return tile


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

    def batch(self, rows: np.ndarray, views: np.ndarray) -> "Tensor":
        """``(len(rows), 3, S, S)`` float32, row i in view ``views[i]``; in memory the channels come last."""
        return _tensor(self.arrays(rows, views))

    def arrays(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """As `batch`, as an array."""
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

    def batch(self, rows: np.ndarray, views: np.ndarray) -> "Tensor":
        """As `TileSource.batch`."""
        return _tensor(self.arrays(rows, views))

    def arrays(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """As `TileSource.arrays`."""
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


AugmentedSource = TileSource | JitteredSource


def augmented_source(tiles: np.ndarray, views: int, augmentation: str) -> AugmentedSource:
    """Tiles in the views that an augmentation draws from.

    Args:
        tiles: ``(N, S, S, 3)`` uint8.
        views: symmetric views that their shape allows.
        augmentation: ``none`` (upright only), ``views`` or ``views+stain``.
    """
    source = TileSource(tiles, 1 if augmentation == "none" else views)
    return JitteredSource(source, StainJitter()) if augmentation == "views+stain" else source


def outputs_by_view(
    network: Callable[[np.ndarray], np.ndarray],
    source: AugmentedSource,
    rows: np.ndarray,
    views: int | None = None,
) -> np.ndarray:
    """What a network gives for some items in each view: ``(views, len(rows), outputs)``; the first view is upright.

    Args:
        network: images ``(N, 3, S, S)`` to ``(N, outputs)``.
        source: of the images.
        rows: positions in it.
        views: how many views, from the first on; None: all.
    """
    count = source.views if views is None else min(views, source.views)
    return np.stack([network(source.arrays(rows, np.full_like(rows, view))) for view in range(count)])


class Subset:
    """Some items of a source, renumbered from 0: `rows` are their positions in it."""

    def __init__(self, source: Source, rows: np.ndarray):
        self.source, self.rows = source, rows
        self.views = source.views

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray, views: np.ndarray) -> "Tensor":
        """As the source's."""
        return self.source.batch(self.rows[rows], views)


def network_input(tiles: np.ndarray, views: np.ndarray) -> np.ndarray:
    """``(N, S, S, 3)`` uint8, each in its view, to ``(N, 3, S, S)`` float32 with ImageNet's mean and deviation.

    In memory the channels come last, as PyTorch's convolutions are fastest.
    """
    x = np.stack([view(tile, int(number)) for tile, number in zip(tiles, views, strict=True)]).astype(np.float32)
    x /= WHITE
    x -= MEAN
    x /= STD
    return x.transpose(0, 3, 1, 2)


def _tensor(array: np.ndarray) -> "Tensor":
    import torch

    return torch.from_numpy(array)
