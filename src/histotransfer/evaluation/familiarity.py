"""How unlike the training pictures a picture is, by features that the network computes on its way.

The features are what the first transition gives on average over the field, each divided by its standard deviation over
the training pictures. A picture's distance is the mean Euclidean distance to the `NEIGHBOURS` nearest training
pictures. Its unit is that mean for the training pictures themselves, each without itself. So distances of several
networks are alike, though the scales of their features differ. Features that lie between those of training pictures are
not unlike them, even if no training picture has such features.

`research/familiarity.py` chose features and distance by a rule that was fixed before, and read no picture of UCSB;
`results/familiarity` has all candidates. What the classifier sees does worse: it keeps what tells the classes apart,
and forgets stain and scanner.

scikit-learn fits it; distances are computed here, as `predict` need not wait for its import.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from histotransfer.errors import HistotransferError

FALSE_ALARMS = 0.05  # the share of pictures of patients who were held out that is called unlike
NEIGHBOURS = 5

Tensors = Mapping[str, np.ndarray]


def threshold(held_out: np.ndarray) -> float:
    """The distance that `FALSE_ALARMS` of these distances are beyond."""
    return float(np.quantile(held_out, 1 - FALSE_ALARMS))


@dataclass(frozen=True)
class Familiarity:
    """The features of the training pictures, and from which distance on a picture is unlike them.

    Whoever is given a network with this is given C numbers of each training picture.

    Attributes:
        mean: ``(C,)`` float32, of the features.
        scale: ``(C,)`` float32: what is one unit of distance in each of them.
        known: ``(N, C)`` float16: the training pictures' features, less `mean` and divided by `scale`.
        threshold: of the distance.
        false_alarms: the share of pictures of held-out patients beyond the threshold.
    """

    mean: np.ndarray
    scale: np.ndarray
    known: np.ndarray
    threshold: float = np.inf
    false_alarms: float = 0.0

    @classmethod
    def fit(cls, features: np.ndarray) -> Self:
        """Keep the features ``(N, C)`` of training pictures; nothing is unlike them before `with_threshold`.

        Raises:
            HistotransferError: no more than `NEIGHBOURS` pictures, features that do not differ, or are not finite.
        """
        from sklearn.neighbors import NearestNeighbors
        from sklearn.preprocessing import StandardScaler

        features, scaler, usual = np.asarray(features, dtype=np.float64), StandardScaler(), 0.0
        if len(features) > NEIGHBOURS and features.size and np.isfinite(features).all():
            search = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(scaler.fit_transform(features))
            usual = search.kneighbors()[0].mean()  # each without itself
        if usual < 1e-6:  # rounding leaves a distance between copies
            raise HistotransferError(
                f"familiarity: the features of {len(features)} training pictures are too few, all alike, or no numbers;"
                " the network will not say what is unlike them"
            )
        mean, scale = scaler.mean_, scaler.scale_ * usual
        known = ((features - mean) / scale).astype(np.float16)
        return cls(mean.astype(np.float32), scale.astype(np.float32), known)

    def distances(self, features: np.ndarray) -> np.ndarray:
        """``(M,)``: how far features ``(M, C)`` are from those of the nearest training pictures."""
        own, known = (np.asarray(features, dtype=np.float64) - self.mean) / self.scale, self.known.astype(np.float64)
        squares = np.square(own).sum(axis=1)[:, None] + np.square(known).sum(axis=1) - 2 * own @ known.T
        nearest = np.partition(squares, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        return np.sqrt(np.maximum(nearest, 0)).mean(axis=1)  # rounding may leave less than 0

    def with_threshold(self, held_out: np.ndarray) -> Self:
        """The same with the threshold that `FALSE_ALARMS` of these distances are beyond.

        Args:
            held_out: distances of pictures whose patients neither the network nor the fit saw.
        """
        limit = threshold(held_out)
        return replace(self, threshold=limit, false_alarms=float(np.mean(held_out > limit)))

    def is_unlike(self, features: np.ndarray) -> np.ndarray:
        """Whether features ``(M, C)`` are beyond the threshold: ``(M,)`` bool."""
        return self.distances(features) > self.threshold

    def tensors(self) -> dict[str, np.ndarray]:
        """All of it as arrays by name, to be stored beside the network; `familiarity` reads them back."""
        return {name: np.asarray(getattr(self, name)) for name in NAMES}


NAMES = [field.name for field in fields(Familiarity)]


def familiarity(tensors: Tensors, channels: int, source: object) -> Familiarity:
    """Read back what `Familiarity.tensors` gave.

    Args:
        tensors: the arrays by name.
        channels: of the network's features.
        source: named in errors.

    Raises:
        HistotransferError: an array is missing, of another shape, not finite, or a scale is not positive.
    """
    if not tensors.keys() >= set(NAMES):
        raise HistotransferError(f"{source}: what it says of its training pictures is incomplete; use another file")
    mean, scale, known, *numbers = (tensors[name] for name in NAMES)
    fits = mean.shape == scale.shape == (channels,) and known.shape[1:] == (channels,)
    finite = all(np.isfinite(tensors[name]).all() for name in NAMES)
    if not fits or len(known) < NEIGHBOURS or not finite or not (scale > 0).all() or any(n.shape for n in numbers):
        raise HistotransferError(f"{source}: what it says of its training pictures is damaged; use another file")
    return Familiarity(mean, scale, known, *map(float, numbers))
