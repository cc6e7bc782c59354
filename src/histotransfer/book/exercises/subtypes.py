"""Chapter 08: who can be judged, one against the rest, and eight classes as two."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import expit, softmax
from sklearn.metrics import roc_auc_score

from histotransfer.book.exercises import require, self_check


@self_check
def check_judged(judged: Callable[[pd.DataFrame], set[str]]) -> str:
    """Exercise `ex-subtype-judged`: subtypes with at least five patients."""
    images = {"ductal_carcinoma": [3] * 9, "adenosis": [60, 50, 40, 2], "fibroadenoma": [1] * 5, "papillary": [8]}
    rows = [(name, f"{name}-{i}") for name, people in images.items() for i, n in enumerate(people) for _ in range(n)]
    names = set(judged(pd.DataFrame(rows, columns=["subtype", "group"])))
    require("adenosis" not in names, "adenosis has most images, and four patients")
    require("fibroadenoma" in names, "fibroadenoma has five patients with an image each: that is five")
    require(names == {"ductal_carcinoma", "fibroadenoma"}, f"for the made table this gives {sorted(names)}")
    return "152 images of four people were left out, five images of five people stayed."


@self_check
def check_one_against_rest(one_against_rest: Callable[[np.ndarray, np.ndarray, int], float]) -> str:
    """Exercise `ex-subtype-auroc`: the AUROC of one subtype against the rest."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, 80)
    probabilities = generator.dirichlet(np.ones(4), 80) + np.eye(4)[truth] * 0.2
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    for subtype in (0, 3):
        auroc = float(one_against_rest(probabilities, truth, subtype))
        expected = roc_auc_score(truth == subtype, probabilities[:, subtype])
        hard = roc_auc_score(truth == subtype, probabilities.argmax(axis=1) == subtype)
        require(abs(auroc - hard) > 1e-9, f"{auroc:.3f} ranks yes and no only; the probability itself says more")
        require(abs(auroc - expected) < 1e-9, f"subtype {subtype}: {auroc:.3f}, where it should be {expected:.3f}")
    return "a subtype can rank well and still never be the most probable one."


@self_check
def check_malignant(malignant: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> str:
    """Exercise `ex-subtype-two`: the probability of malignant from eight logits."""
    logits = np.random.default_rng(0).normal(0, 3, (20, 8))
    logits[0] += 1000  # the exponential alone would overflow
    is_malignant = np.array([False] * 4 + [True] * 4)
    expected = softmax(logits, axis=1)[:, is_malignant].sum(axis=1)
    with np.errstate(all="ignore"):
        probability = np.asarray(malignant(logits, is_malignant))
    require(probability.shape == (20,), f"return one probability per image, not {probability.shape}")
    finite = np.isfinite(probability).all()
    require(finite, "the exponential of a logit near 1000 overflows: subtract the largest logit of each row first")
    summed = logits[:, is_malignant].sum(axis=1) - logits[:, ~is_malignant].sum(axis=1)
    require(not np.allclose(probability, expit(summed)), "logits do not add up over classes; probabilities do")
    require(np.allclose(probability, expected), f"off by up to {np.abs(probability - expected).max():.2g}")
    return "an image whose probability is split over four malignant subtypes is malignant all the same."
