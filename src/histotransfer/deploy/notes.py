"""What is odd about a picture, in words: a network answers for every picture, so a row must say when it should not.

Everything is computed on the picture as the network sees it, squeezed to a square but in its own colours, in two
milliseconds: the guards of `stain.density`, sharpness, and the picture's size. Nothing is refused for a note.

The limits lie outside what BreakHis, UCSB and LC25000 show; measured on 1,361 fields of BreakHis, 58 of UCSB and 300
of LC25000.
"""

import cv2
import numpy as np

from histotransfer.pictures import resize
from histotransfer.stain import NotNormalisable, fit_stains, sample_density

OUT_OF_FOCUS = "out of focus"
UNLIKE = "unlike the training pictures"

# Of a sharp field: in 999 of 1,000 of BreakHis 0.02 and more, UCSB's lowest is 0.06; blurred by a Gaussian of 3 of 224
# pixels, 99 % of BreakHis are below 0.0134.
MIN_SHARPNESS = 0.015
DETAIL = 1.5  # pixels: standard deviation of the Gaussian that takes detail away
FOCUS_SIDE = 224  # what the limit was measured at; a field enlarged beyond it has no more detail than it had

# The three data sets have fields of 1 to 1.5 sides, shrunk to 224 pixels by 1 to 4: a factor of two beyond.
MAX_ASPECT = 3.0
MAX_SHRUNK, MAX_ENLARGED = 8.0, 2.0


def notes(picture: np.ndarray, tile: np.ndarray, unchanged: str = "") -> list[str]:
    """What is odd about a picture; nothing, for an ordinary field.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB, as decoded; only its shape counts.
        tile: the same, squeezed to ``(S, S, 3)``, before colours are normalised.
        unchanged: why the normaliser left the tile as it was; empty if it did not.
    """
    found = [_size(picture.shape[1], picture.shape[0], len(tile)), _stains(tile)]
    if not found[1] and sharpness(tile) < MIN_SHARPNESS:
        found.append(OUT_OF_FOCUS)
    if unchanged:
        found.append(f"colours not normalised ({unchanged})")
    return [note for note in found if note]


def _size(width: int, height: int, side: int) -> str:
    long, short = max(width, height), min(width, height)
    unusual = long > MAX_ASPECT * short or long > MAX_SHRUNK * side or MAX_ENLARGED * short < side
    return f"unusual size ({width}x{height} pixels)" if unusual else ""


def _stains(tile: np.ndarray) -> str:
    """The guard that haematoxylin and eosin fail: too little tissue, pen ink, one stain only ..."""
    try:
        fit_stains(sample_density(tile))
    except NotNormalisable as reason:
        return str(reason)
    return ""


def sharpness(tile: np.ndarray) -> float:
    """The share of the variance of brightness that a slight blur takes away, 0 to 1: low where there is no detail.

    Args:
        tile: ``(S, S, 3)`` uint8 RGB.
    """
    grey = cv2.cvtColor(resize(tile, min(len(tile), FOCUS_SIDE)), cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = grey - cv2.GaussianBlur(grey, (0, 0), DETAIL)
    return float(detail.var() / max(grey.var(), np.finfo(np.float32).tiny))
