"""From an image file to pixels, and to a square; without PyTorch.

A field is squeezed to a square (both sides to `size`, Pillow's antialiased bicubic), as the real subset was.
"""

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from histotransfer.errors import HistotransferError

MAX_PIXELS = 50_000_000  # a field has 0.3 million; more is a whole slide or a header that lies
MIN_SIDE = 16
COLOUR_MODES = {"RGB", "RGBA", "P", "CMYK", "YCbCr"}


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


def symmetric_views(paths: Sequence[str | Path]) -> int:
    """How many symmetric views a user's images allow: 8 if all files are square, else 4."""
    for path in paths:
        with Image.open(path) as image:
            if image.width != image.height:
                return 4
    return 8
