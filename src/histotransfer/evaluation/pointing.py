"""The pointing game: is a map's hottest cell in the diagnostic region?

Paper: Zhang et al. 2018, https://arxiv.org/abs/1608.00507. Deviation: a hit means that the middle of the hottest cell
is in the region, without the paper's tolerance of 15 pixels: a cell is larger than that.
"""

import numpy as np
import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.intervals import enough, fewest, jackknife, limits

DRAWS = 1000


def hottest(maps: np.ndarray, size: int) -> np.ndarray:
    """Row and column of the pixel in the middle of each map's hottest cell: ``(N, 2)``, for images of `size` pixels."""
    cells = np.stack(np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), maps.shape[1:]), axis=1)
    return ((cells + 0.5) * size / np.array(maps.shape[1:])).astype(int)


def pointing_game(
    maps: np.ndarray, masks: np.ndarray, groups: np.ndarray, classes: np.ndarray, *, seed: int = 0
) -> pd.DataFrame:
    """How often maps point into the diagnostic region, beside pointing at random and at the middle.

    Args:
        maps: ``(N, h, w)``.
        masks: ``(N, S, S)`` bool. Images whose mask is empty have nothing to point at and are left out.
        groups: ``(N,)`` patients: the intervals are clustered by them.
        classes: ``(N,)`` within which patients are left out.
        seed: of the random points.

    Returns:
        One row per way to point, and one per difference: `value`, `low`, `high`, `images`, `patients`. Pointing at
        random is there twice: exactly, as the share of the image that the region covers, and by `DRAWS` random pixels
        per image.

    Raises:
        HistotransferError: every mask is empty.
    """
    there = masks.any(axis=(1, 2))
    if not there.any():
        raise HistotransferError("pointing game: no image has a diagnostic region; there is nothing to point at")
    maps, masks, groups, classes = maps[there], masks[there], groups[there], classes[there]
    size, images = masks.shape[-1], np.arange(len(masks))[:, None]
    points = {
        "Grad-CAM": hottest(maps, size)[:, None],
        "the middle": np.full((1, 1, 2), size // 2),
        "at random, by draws": np.random.default_rng(seed).integers(0, size, (len(masks), DRAWS, 2)),
    }
    hits = {name: masks[images, at[..., 0], at[..., 1]].mean(axis=1) for name, at in points.items()}
    hits["at random, exactly"] = masks.mean(axis=(1, 2))
    rows = {name: mean_with_interval(values, groups, classes) for name, values in hits.items()}
    for other in ("the middle", "at random, exactly"):
        gap = hits["Grad-CAM"] - hits[other]
        rows[f"Grad-CAM minus {other}"] = mean_with_interval(gap, groups, classes, least=-1)
    return pd.DataFrame(rows).T.astype({"images": int, "patients": int})


def mean_with_interval(
    values: np.ndarray, groups: np.ndarray, classes: np.ndarray, *, least: float = 0
) -> dict[str, float]:
    """Mean over images of values from `least` to 1, with the interval that `intervals` gives a metric from 0 to 1.

    Args:
        values: ``(N,)``.
        groups: ``(N,)`` patients.
        classes: ``(N,)`` within which patients are left out.
        least: lower bound of the values.

    Returns:
        `value`, `low`, `high` (NaN where a class has one patient), `images`, `patients`.
    """
    frame = pd.DataFrame({"value": values, "group": groups, "class": classes})
    clusters = frame.groupby(["class", "group"])["value"].agg(["sum", "size"])
    sums, sizes, strata = clusters["sum"].to_numpy(), clusters["size"].to_numpy(), clusters.index.codes[0]
    value, low, high = values.mean(), np.nan, np.nan
    if enough(strata):
        shares = sizes / np.bincount(strata, sizes)[strata]
        error, freedom = jackknife((sums.sum() - sums) / (sizes.sum() - sizes), shares, strata)
        share, span = (value - least) / (1 - least), 1 - least
        ends = limits("share", share, error / span, freedom, fewest(shares, strata))
        low, high = (least + span * end for end in ends)
    return {"value": value, "low": low, "high": high, "images": len(values), "patients": len(set(groups))}
