import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histotransfer.evaluation.conformal import strangeness, threshold

NAMES = ["benign", "malignant"]


def patients(count, seed, noise=1.0, malignant=0.7):
    """One row per patient; the log-odds are right on average."""
    draw = np.random.default_rng(seed)
    truth = draw.random(count) < malignant
    odds = np.where(truth, 1.5, -1.5) + noise * draw.normal(size=count)
    return pd.DataFrame(
        {
            "group": [f"P{i}" for i in range(count)],
            "truth": np.where(truth, *NAMES[::-1]),
            "logit_benign": -odds / 2,
            "logit_malignant": odds / 2,
        }
    )


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("malignant", [0.2, 0.7])
def test_new_patients_are_covered_as_often_as_stated(coverage, malignant):
    covered = []
    for seed in range(150):
        limit = threshold([patients(60, seed, malignant=malignant)], coverage)
        covered.append((strangeness(patients(400, 10_000 + seed, malignant=malignant)) <= limit).mean())
    assert coverage - 0.01 <= np.mean(covered) <= coverage + 0.03


@given(st.lists(st.floats(0.001, 0.999), min_size=12, max_size=60), st.sampled_from([0.8, 0.9]))
def test_the_threshold_is_the_textbook_quantile(chances, coverage):
    """Vovk: the value of rank ceil((n + 1) * coverage)."""
    odds = np.log(chances) - np.log1p(-np.array(chances))
    table = pd.DataFrame({"truth": "benign", "logit_benign": odds, "logit_malignant": 0.0})
    rank = int(np.ceil(np.round((len(chances) + 1) * coverage, 9)))
    expected = np.append(np.sort(1 - np.array(chances)), 1.0)[rank - 1]
    assert threshold([table], coverage) == pytest.approx(expected, abs=1e-9)


def test_with_too_few_patients_every_class_is_left():
    assert threshold([patients(8, 0)], 0.9) == 1
    assert threshold([patients(9, 0)], 0.9) == strangeness(patients(9, 0)).max()


def test_several_tables_are_one_mean_and_not_more_patients():
    table = patients(60, 1)
    assert threshold([table] * 5) == threshold([table])
    each = [threshold([patients(60, seed)]) for seed in (1, 2)]
    assert min(each) <= threshold([table, patients(60, 2)]) <= max(each)
