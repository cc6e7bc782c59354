"""Find from the pixels alone which images are copies of one original, turned, mirrored, cropped or zoomed.

LC25000 was made by turning each original about its centre by up to 25 degrees, cropping, enlarging and mirroring it.
So two copies show one scene about one centre, at different angle, scale and handedness. Three steps find them:

1. *Neighbours.* Each image is read in polar coordinates about its centre, once as it is and at five larger zooms. The
   magnitudes of the Fourier coefficients along the angle do not change when the image is turned or mirrored. Nearest
   neighbours among them (scikit-learn) are the candidates: every image keeps a few, so the number of pairs is linear.
2. *Pose.* Correlating the coefficients themselves (Fourier-Mellin; Reddy and Chatterji 1996, doi:10.1109/83.506761)
   gives the angle, the zoom and the handedness under which a candidate fits best.
3. *Proof.* From that pose the two pictures are laid onto each other (ECC; Evangelidis and Psarakis 2008,
   doi:10.1109/TPAMI.2008.113, in OpenCV). Their correlation is then near 1 for copies and near 0.4 for others.

Pairs above a threshold are linked; connected components are the groups. How well they agree with published
groups is in ``results/duplicates/record.json`` (`histotransfer experiment duplicates`). Most missed copies are enlarged
to almost twice the size of their siblings; where an original has twenty copies, copies of sizes between link them.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

from histotransfer.datasets import lc25000
from histotransfer.errors import HistotransferError
from histotransfer.files import whole_file
from histotransfer.folders import PassedOver, find_home, walk
from histotransfer.pictures import decode

SIDE = 112  # pixels of the thumbnail in which everything is compared
CENTRE = (SIDE - 1) / 2
RINGS, ANGLES = 16, 64
ORDERS = 24  # Fourier orders along the angle that are correlated
INVARIANT_ORDERS = 12
ZOOMS = 1.09 ** np.arange(6)  # up to 1.54: what copies were seen to differ by
NEIGHBOURS = 15
HOPELESS = 0.3  # polar correlation below which no pair is laid onto each other
THRESHOLD = 0.86  # tuned on half of the published groups: results/duplicates/record.json
CHUNK = 1024  # pairs correlated at once


@dataclass(frozen=True)
class Prints:
    """What is kept of N images, 45 kB per image.

    Attributes:
        thumbnails: ``(N, SIDE, SIDE)`` uint8, lightness.
        spectra: ``(N, zooms, ORDERS, RINGS)`` complex64, lightness along the angle; of unit norm.
        invariants: ``(N, zooms, D)`` float32, the same after a turn or a mirroring.
    """

    thumbnails: np.ndarray
    spectra: np.ndarray
    invariants: np.ndarray


def find_groups(
    paths: Sequence[str | Path],
    threshold: float = THRESHOLD,
    *,
    workers: int | None = None,
    progress: bool = False,
) -> pd.Series:
    """Number the groups of near-duplicates among images.

    Args:
        paths: N image files; copies are sought among all of them.
        threshold: correlation, 0 to 1, from which two aligned images count as copies.
        workers: threads; all cores by default.
        progress: show bars.

    Returns:
        Series `group` of length N, int, indexed by the paths as text; groups are numbered by first appearance.

    Raises:
        HistotransferError: an image that cannot be read, or a path given twice.
    """
    names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise HistotransferError(f"{pd.Series(names)[pd.Series(names).duplicated()].iloc[0]}: given twice")
    pairs = score_pairs(names, skip_from=threshold, workers=workers, progress=progress)
    return pd.Series(groups_of(pairs, threshold, len(names)), index=pd.Index(names, name="file"), name="group")


def score_pairs(
    paths: Sequence[str | Path],
    *,
    skip_from: float | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Candidate pairs with the correlation of the aligned images.

    Args:
        paths: N image files.
        skip_from: a pair whose images are already linked through others, by correlations of at least this value, is not
            aligned: less work, and the groups at this threshold stay the same. By default every candidate is aligned.
        workers: threads; all cores by default.
        progress: show bars.

    Returns:
        Columns `a, b` (positions in `paths`, a < b) and `score`.
    """
    prints = describe(paths, workers=workers, progress=progress)
    pairs = nearest_pairs(prints.invariants)
    poses = _poses(prints.spectra, pairs)
    order = np.argsort(-poses[:, 0], kind="stable")
    order = order[poses[order, 0] >= HOPELESS]
    linked = DisjointSet(range(len(paths)))
    rows = []
    batch = 256  # the links found in one batch spare work in the next; the result does not depend on it

    def align(k: int) -> tuple[int, int, float]:
        return *pairs[k], _aligned_correlation(prints.thumbnails, poses[k])

    starts = tqdm(range(0, len(order), batch), "pairs", disable=not progress, leave=False)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in starts:
            todo = [k for k in order[start : start + batch] if not linked.connected(*pairs[k])]
            for a, b, score in pool.map(align, todo):
                rows.append((a, b, score))
                if skip_from is not None and score >= skip_from:
                    linked.merge(a, b)
    return pd.DataFrame(rows, columns=["a", "b", "score"]).astype({"a": int, "b": int, "score": float})


def describe(paths: Sequence[str | Path], *, workers: int | None = None, progress: bool = False) -> Prints:
    """Read images and keep what the comparison needs.

    Raises:
        HistotransferError: an image that cannot be read.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        bar = tqdm(pool.map(_describe_one, paths), "images", len(paths), disable=not progress, leave=False)
        prints = [np.empty((len(paths), *shape), kind) for shape, kind in _SHAPES]
        for i, parts in enumerate(bar):
            for array, part in zip(prints, parts, strict=True):
                array[i] = part
    return Prints(*prints)


_WEIGHTS = np.sqrt((np.arange(RINGS, dtype=np.float32) + 0.5) / RINGS)  # a ring counts by its area
_SHAPES = (
    ((SIDE, SIDE), np.uint8),
    ((len(ZOOMS), ORDERS, RINGS), np.complex64),
    ((len(ZOOMS), INVARIANT_ORDERS * RINGS * 3), np.float32),
)


def _describe_one(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lab = _lab_thumbnail(path)
    spectra, invariants = [], []
    for zoom in ZOOMS:
        smooth = cv2.GaussianBlur(lab, (0, 0), 2.2 / zoom)  # equally sharp once enlarged
        # Twice as fine as needed, then averaged: (angles, rings, 3).
        polar = cv2.warpPolar(smooth, (2 * RINGS, 2 * ANGLES), (CENTRE, CENTRE), CENTRE / zoom, cv2.INTER_LINEAR)
        polar = cv2.resize(polar, (RINGS, ANGLES), interpolation=cv2.INTER_AREA)
        coefficients = np.fft.rfft(polar, axis=0).astype(np.complex64) / ANGLES * _WEIGHTS[:, None]
        invariants.append(np.abs(coefficients[:INVARIANT_ORDERS]).ravel())
        lightness = coefficients[:ORDERS, :, 0]
        lightness[0] -= _WEIGHTS * (lightness[0] @ _WEIGHTS) / (_WEIGHTS @ _WEIGHTS)  # the mean over the disc
        power = np.abs(lightness) ** 2
        spectra.append(lightness / max(np.sqrt(2 * power.sum() - power[0].sum()), 1e-6))
    thumbnail = cv2.GaussianBlur(lab[..., 0], (0, 0), 1.0) * 2.55
    return np.rint(thumbnail).astype(np.uint8), np.stack(spectra), np.stack(invariants)


def _lab_thumbnail(path: str | Path) -> np.ndarray:
    """``(SIDE, SIDE, 3)`` float32 CIELAB, the whole field squeezed to a square."""
    small = Image.fromarray(decode(path)).resize((SIDE, SIDE), Image.Resampling.BOX)
    return cv2.cvtColor(np.asarray(small, np.float32) / 255, cv2.COLOR_RGB2LAB)


def nearest_pairs(invariants: np.ndarray) -> np.ndarray:
    """``(P, 2)`` pairs a < b: each image with its nearest neighbours over all zooms."""
    count = len(invariants)
    if count < 2:
        return np.empty((0, 2), int)
    near = min(NEIGHBOURS, count - 1) + 1  # itself is among them
    base = NearestNeighbors(n_neighbors=near, algorithm="brute").fit(invariants[:, 0])
    searches = [base.kneighbors(invariants[:, zoom]) for zoom in range(len(ZOOMS))]
    distances, neighbours = (np.concatenate(parts, axis=1) for parts in zip(*searches, strict=True))
    frame = pd.DataFrame(
        {
            "a": np.repeat(np.arange(count), distances.shape[1]),
            "b": neighbours.ravel(),
            "distance": distances.ravel(),
        }
    )
    frame = frame[frame["a"] != frame["b"]].sort_values(["a", "distance", "b"]).drop_duplicates(["a", "b"])
    pairs = frame.groupby("a").head(NEIGHBOURS)[["a", "b"]].to_numpy()
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _poses(spectra: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The best pose of each pair, ``(P, 6)``: correlation, wide image, narrow image, zoom, mirrored, angle (radians).

    The wide image, enlarged by the zoom, shows what the narrow one shows.
    """
    poses = np.full((len(pairs), 6), -np.inf)
    for start in range(0, len(pairs), CHUNK):
        for z, zoom in enumerate(ZOOMS):
            for wide, narrow in (pairs[start : start + CHUNK].T, pairs[start : start + CHUNK, ::-1].T):
                a, b = spectra[wide, z].conj(), spectra[narrow, 0]
                for mirrored, other in enumerate((b, b.conj())):
                    products = np.einsum("pmr,pmr->pm", a, other)
                    correlation = np.fft.irfft(products, 2 * ANGLES, axis=1) * 2 * ANGLES
                    best = correlation.argmax(axis=1)
                    value = correlation[np.arange(len(best)), best]
                    angle = best * np.pi / ANGLES
                    new = np.stack(np.broadcast_arrays(value, wide, narrow, zoom, mirrored, angle), axis=1)
                    part = poses[start : start + CHUNK]
                    better = value > part[:, 0]
                    part[better] = new[better]
    return poses


def _aligned_correlation(thumbnails: np.ndarray, pose: np.ndarray) -> float:
    """Correlation of two thumbnails after ECC alignment from a pose; 0 where it does not converge."""
    _, wide, narrow, zoom, mirrored, angle = pose
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, -sine], [-sine, -cosine]] if mirrored else [[cosine, sine], [-sine, cosine]]) / zoom
    shift = CENTRE - turn @ [CENTRE, CENTRE]
    warp = np.column_stack([turn, shift]).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-3)
    try:
        score, _ = cv2.findTransformECC(  # type: ignore[call-overload]  # OpenCV's types forget None: no mask
            thumbnails[int(narrow)], thumbnails[int(wide)], warp, cv2.MOTION_AFFINE, stop, None, 1
        )
    except cv2.error:  # the pictures drift apart: not of one scene
        return 0.0
    return max(float(score), 0.0) if np.isfinite(score) else 0.0


def groups_of(pairs: pd.DataFrame, threshold: float, count: int) -> np.ndarray:
    """``(count,)`` group numbers: the connected components of pairs from `threshold` on, numbered by appearance."""
    linked = pairs[pairs["score"] >= threshold]
    edges = coo_array((np.ones(len(linked)), (linked["a"], linked["b"])), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def pairwise_agreement(groups: pd.Series, published: pd.Series) -> tuple[float, float]:
    """Precision and recall of the pairs of images that share a group; both series are aligned by position.

    Precision is 1 where `groups` holds no pair, recall 1 where `published` holds none.
    """
    both = pd.DataFrame({"groups": groups.to_numpy(), "published": published.to_numpy()})

    def pairs(columns: list[str]) -> int:
        sizes = both.groupby(columns).size()
        return int((sizes * (sizes - 1) // 2).sum())

    shared, ours, theirs = pairs(["groups", "published"]), pairs(["groups"]), pairs(["published"])
    return shared / ours if ours else 1.0, shared / theirs if theirs else 1.0


def write_groups(
    root: str | Path, passed_over: list[PassedOver] | None = None, *, progress: bool = False
) -> list[Path]:
    """Find the duplicate groups of every LC25000 class in a folder and write the lists that its loader reads.

    Args:
        root: the folder that holds `lung_colon_image_set`; ``lc25000_groups/<class>.csv`` is written there, for each
            class that has none yet: what was interrupted goes on.
        passed_over: what was not read is appended to it.
        progress: show bars.

    Raises:
        HistotransferError: no such class folder, every list is already there, or an image that cannot be read.
    """
    tree = next((tree for tree in lc25000.TREES if (find_home(root, tree) / tree).is_dir()), lc25000.TREE)
    root = find_home(root, tree)
    present = [label for label, folder in lc25000.FOLDERS.items() if (root / folder).is_dir()]
    if not present:
        raise HistotransferError(f"{root}: holds no class of LC25000; give the folder with lung_colon_image_set")
    every = {label: root / lc25000.GROUPS / f"{label}.csv" for label in present}
    targets = {label: target for label, target in every.items() if not target.exists()}
    if not targets:
        raise HistotransferError(f"{every[present[0]]}: is already there; remove it to have groups found anew")
    for label, target in targets.items():
        groups = find_groups(walk(root / lc25000.FOLDERS[label], passed_over), progress=progress)
        with whole_file(target) as temporary:
            groups.rename(lambda path: lc25000.published_name(Path(path))).to_csv(temporary)
    return list(targets.values())
