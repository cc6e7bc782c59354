"""Chapter 11: what keeps a data set external, how many images five slides are worth, rank and threshold."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from histotransfer.book.exercises import letters, require, self_check

SPOILS = {
    "a": "a normaliser that is fitted to the external images has seen them",
    "c": "choosing the arm by its external score is tuning on it",
    "d": "a threshold set on external labels is trained on them",
}


@self_check
def check_spoils(spoils: Iterable[str]) -> str:
    """Exercise `ex-external-spoils`: what makes an external data set no longer external."""
    chosen = letters(spoils)
    accused = sorted(chosen - set(SPOILS))
    require(not accused, f"({', '.join(accused)}) takes nothing from the external images for the network")
    require(chosen == set(SPOILS), f"{len(set(SPOILS) - chosen)} more: what is decided with these images in view?")
    return "; ".join(SPOILS.values()) + "."


@self_check
def check_effective(effective: Callable[[Sequence[int], float], float]) -> str:
    """Exercise `ex-external-effective`: how many independent images clustered ones are worth."""
    for counts, rho in (([10] * 5, 0.0), ([10] * 5, 1.0), ([10] * 5, 0.3), ([1] * 8, 0.9), ([1] * 4 + [6] * 4, 0.5)):
        worth, sizes = float(effective(counts, rho)), np.array(counts)
        expected = sizes.sum() ** 2 / (sizes.sum() + rho * (sizes * (sizes - 1)).sum())
        about = f"{counts} images, correlation {rho}: {worth:.2f}"
        require(rho == 0 or worth < sizes.sum() or set(counts) == {1}, f"{about}; correlated images are worth fewer")
        require(abs(worth - expected) < 1e-6, f"{about}, where it should be {expected:.2f}")
    return "when images of a slide say all the same, there are as many as there are slides."


@self_check
def check_shifted(shifted: Callable[[np.ndarray], np.ndarray]) -> str:
    """Exercise `ex-external-threshold`: the same ranking, and a threshold that says nothing."""
    generator = np.random.default_rng(0)
    truth = np.repeat([0, 1], 50)
    probability = np.clip(0.3 + 0.4 * truth + generator.normal(0, 0.15, 100), 0.01, 0.99)
    moved = np.asarray(shifted(probability))
    require(moved.shape == (100,) and (moved >= 0).all() and (moved <= 1).all(), "return 100 probabilities")
    before, after = roc_auc_score(truth, probability), roc_auc_score(truth, moved)
    require(abs(after - before) < 1e-9, f"AUROC went from {before:.2f} to {after:.2f}: the ranking changed")
    accuracy = ((moved > 0.5) == truth).mean()
    require(accuracy == 0.5, f"accuracy at 0.5 is {accuracy:.2f}; it can be made a coin's")
    return f"AUROC {after:.2f}, accuracy 0.50: a camera that makes everything darker can do that."
