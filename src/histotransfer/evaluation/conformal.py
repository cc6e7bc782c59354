"""The threshold of sets with a stated coverage: conformal prediction, by the package crepes.

A class stays in a picture's set while its p-value is above 1 - coverage: the share of calibration patients whose true
class is at least as strange to the network, with the picture itself counted among them (Vovk and others 2005,
https://doi.org/10.1007/b106715). So the set holds the truth for the stated share of patients like those of the
calibration, in their mix of classes; for the rarer class it may be less. Limits for each class would cover each, but
with a dozen benign patients the limit is the strangest of them: measured on the final runs of the first edition, 58 %
of pictures could not be told then, and 24 % with one limit.

A patient counts once: one picture of each is drawn, several times, or a patient's pictures are averaged; the p-value
is the mean over draws and networks (Dunn et al. 2023, https://doi.org/10.1080/01621459.2022.2060112).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from histotransfer.errors import needs_extra
from histotransfer.evaluation.metrics import class_names, probabilities
from histotransfer.evaluation.sets import COVERAGE

ROUNDING = 1e-9  # of 1 - coverage


def strangeness(table: pd.DataFrame) -> np.ndarray:
    """``(N,)`` of each row's true class: 1 - its probability."""
    names = class_names(table)
    return 1 - probabilities(table)[np.arange(len(table)), table["truth"].map(names.index)]


def threshold(tables: Sequence[pd.DataFrame], coverage: float = COVERAGE) -> float:
    """The largest strangeness with which a class stays in a set that has the stated coverage.

    Args:
        tables: predictions of patients by networks that never saw them; in each, one row per patient and class.
        coverage: of the sets, between 0 and 1.

    Returns:
        0 to 1; 1, so that every class is in every set, where there are too few patients to tell.

    Raises:
        HistotransferError: crepes is not installed, or a logit is not finite.
    """
    with needs_extra("book"):
        from crepes import ConformalClassifier
    scores = [strangeness(table) for table in tables]
    candidates = np.unique(np.concatenate([*scores, [1.0]]))
    values = [ConformalClassifier().fit(own).predict_p(candidates[:, None], smoothing=False) for own in scores]
    return float(candidates[np.mean(values, axis=0)[:, 0] > 1 - coverage + ROUNDING].max())
