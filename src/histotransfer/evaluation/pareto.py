"""Which of several nets are worth their cost."""

import numpy as np


def pareto_front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Which of N points no other point beats by being as cheap and as good, and better in one of the two.

    Args:
        cost: ``(N,)``, less is better.
        value: ``(N,)``, more is better.

    Returns:
        ``(N,)`` bool.
    """
    cheaper, better = cost[None] <= cost[:, None], value[None] >= value[:, None]
    strictly = (cost[None] < cost[:, None]) | (value[None] > value[:, None])
    return (cheaper & better & strictly).sum(axis=1) == 0
