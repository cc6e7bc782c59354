"""Which of several nets are worth their cost."""

import numpy as np


def pareto_front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Which of N points no other beats, being as cheap and as good, and one of the two strictly: ``(N,)`` bool."""
    cheaper, better = cost[None] <= cost[:, None], value[None] >= value[:, None]
    strictly = (cost[None] < cost[:, None]) | (value[None] > value[:, None])
    return ~(cheaper & better & strictly).any(axis=1)
