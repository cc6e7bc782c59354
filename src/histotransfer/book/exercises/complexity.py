"""Chapter 09: how cost scales, what a convolution costs, what no other beats."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from histotransfer.book.exercises import require, self_check
from histotransfer.evaluation.pareto import pareto_front


@self_check
def check_scaling(answer: dict[str, float]) -> str:
    """Exercise `ex-complexity-scaling`: costs at 224 pixels over costs at 112."""
    require(set(answer) == {"parameters", "operations"}, "give `parameters` and `operations`")
    require(all(value is not ... for value in answer.values()), "put numbers in place of the dots")
    require(answer["operations"] != 2, "twice the side is four times the pixels")
    require(answer["operations"] == 4, "operations grow with the area of the maps")
    require(answer["parameters"] == 1, "a kernel does not know how large the picture is that it slides over")
    return "which is why a smaller picture is the first thing to try, and no way to a smaller file."


@self_check
def check_multiply_adds(multiply_adds: Callable[[int, int, int, int, int], int]) -> str:
    """Exercise `ex-complexity-convolution`: multiply-adds of a padded convolution with a stride."""
    for inputs, outputs, kernel, side, stride in ((3, 64, 7, 224, 2), (256, 128, 1, 28, 1), (128, 32, 3, 14, 1)):
        with torch.device("meta"):
            conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
            image = torch.empty(1, inputs, side, side)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            conv(image)
        expected = counter.get_total_flops() // 2
        counted = multiply_adds(inputs, outputs, kernel, side, stride)
        about = f"{inputs} to {outputs} channels, {kernel} x {kernel}, side {side}, stride {stride}: {counted:,}"
        require(counted != expected * stride**2 or stride == 1, f"{about}; a stride of {stride} shrinks the output map")
        require(counted == expected, f"{about}, where PyTorch counts {expected:,}")
    return "the first convolution sees the largest map: few parameters, many operations."


@self_check
def check_front(front: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> str:
    """Exercise `ex-complexity-front`: nets that no other beats."""
    generator = np.random.default_rng(0)
    cases = [(np.array([1.0, 2, 3]), np.array([0.7, 0.9, 0.8])), (np.array([1.0, 1, 2]), np.array([0.7, 0.8, 0.8]))]
    cases += [tuple(generator.integers(0, 6, (2, 12)).astype(float)) for _ in range(20)]
    for cost, score in cases:
        kept = np.asarray(front(cost, score))
        require(kept.shape == cost.shape and kept.dtype == bool, "return one True or False for each net")
        wrong = np.flatnonzero(kept != pareto_front(cost, score))
        if wrong.size:
            i = wrong[0]
            what = "is beaten, and yours keeps it" if kept[i] else "is beaten by none, and yours drops it"
            require(False, f"costs {cost.tolist()}, scores {score.tolist()}: net {i} {what}")
    return "a front of estimates is itself an estimate: look at the intervals before choosing."
