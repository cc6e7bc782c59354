"""How large a network is: parameters, bytes, operations, activations; and how many nets share a parameter count.

Operations are multiply-adds (MAC), counted by PyTorch's `FlopCounterMode` (which counts each as two). Huang et al.
2017, torchvision and many published tables call them FLOPs. Everything is counted on the meta device: no weight is
allocated and nothing is computed.
"""

from collections.abc import Sequence
from itertools import chain, combinations, product
from math import prod, sqrt
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from histotransfer.config import Position
from histotransfer.models.se_densenet import CONFIGURATIONS, SEDenseNet, Stem, parameter_count

FLOAT32 = 4  # bytes

POSITION_SETS = tuple(chain.from_iterable(combinations(get_args(Position), count) for count in range(4)))
GRID = {
    "blocks": (3, 4),
    "depth": (2, 4, 6, 8, 12, 16, 24),
    "growth_rate": (8, 12, 16, 20, 24, 32),
    "stem_features": (16, 24, 32, 64),
    "stem": get_args(Stem),
    "bottleneck": (None, 4),
    "compression": (0.5, 1.0),
    "positions": POSITION_SETS,
    "reduction": (2, 4, 8, 16, 32),
    "num_classes": (1, 2, 8),
}
"""Small SE-DenseNets: round values of everything that the paper does not state; `depth` is that of each block."""


def multiply_adds(model: nn.Module, size: int) -> int:
    """Multiply-adds for one RGB image of `size` pixels per side; `model` may be on the meta device."""
    with FlopCounterMode(display=False) as counter:
        _run(model, size)
    return counter.get_total_flops() // 2


def activation_values(model: nn.Module, size: int) -> int:
    """Number of values in the outputs of all innermost modules for one image: the forward pass of summary tools."""
    counts: list[int] = []
    leaves = [module for module in model.modules() if not any(module.children())]
    hooks = [leaf.register_forward_hook(lambda _, inputs, output: counts.append(output.numel())) for leaf in leaves]
    try:
        _run(model, size)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counts)


@torch.no_grad()
def _run(model: nn.Module, size: int) -> None:
    model.eval()(torch.empty(1, 3, size, size, device=next(model.parameters()).device))


def size_of(size: int, num_classes: int = 2, **architecture: Any) -> dict[str, float]:
    """The size of one SE-DenseNet.

    Args:
        size: pixels per side of the image.
        num_classes: number of logits.
        architecture: other keyword arguments of `SEDenseNet`.

    Returns:
        `parameters`; `MB on disk` (float32, million bytes, with BatchNorm's statistics); `GMAC` (billion
        multiply-adds); `MB of activations` (float32, one image, forward).
    """
    model = _on_meta(num_classes, architecture)
    return {
        "parameters": parameter_count(model),
        "MB on disk": sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6,
        "GMAC": multiply_adds(model, size) / 1e9,
        "MB of activations": activation_values(model, size) * FLOAT32 / 1e6,
    }


def _on_meta(num_classes: int, architecture: dict[str, Any]) -> SEDenseNet:
    with torch.device("meta"):
        return SEDenseNet(num_classes, **architecture)


def candidates(size: int = 224) -> pd.DataFrame:
    """Sizes of the nets that the paper may have used, for two classes unless the name states another number."""
    plain, gated = {"positions": ()}, {"positions": ("block", "transition")}
    nets = {}
    for name in ("densenet121", "densenet169", "densenet201", "densenet40-k12", "densenet-bc100-k12"):
        nets[name] = plain | CONFIGURATIONS[name]
        nets[f"{name} + SE"] = gated | CONFIGURATIONS[name]
    nets["densenet201 + SE, 1000 classes"] = nets["densenet201 + SE"] | {"num_classes": 1000}
    rows = {name: size_of(size, **net) for name, net in nets.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("net").astype({"parameters": int})


def default_head(features: int, num_classes: int) -> nn.Module:
    """What fastai's `create_head` trains over a frozen trunk: two layers on the mean and maximum of each feature."""
    return nn.Sequential(
        nn.BatchNorm1d(2 * features),
        nn.Linear(2 * features, 512, bias=False),
        nn.BatchNorm1d(512),
        nn.Linear(512, num_classes, bias=False),
    )


def pixels_for_total(megabytes: float, num_classes: int, **architecture: Any) -> float:
    """Pixels per side at which a summary tool would print this "estimated total size" for a net.

    torchsummary adds parameters, image, and activations forward and backward, in units of 2**20 bytes; the last two
    grow with the image's area.
    """
    model, size = _on_meta(num_classes, architecture), 64
    at_64 = 3 * size**2 + 2 * activation_values(model, size)
    return size * sqrt((megabytes * 2**20 / FLOAT32 - parameter_count(model)) / at_64)


def expected_parameters(
    block_config: Sequence[Any],
    growth_rate: Any,
    stem_features: Any,
    *,
    stem: Stem,
    bottleneck: int | None,
    compression: float,
    reduction: int,
) -> dict[str, Any]:
    """Parameters of an SE-DenseNet's parts, without building it.

    `block_config`'s depths, `growth_rate` and `stem_features` may be integer arrays of one shape; so are the results.

    Returns:
        `trunk` (all but gates and classifier), the gates of each position, and `features`, the classifier's inputs (it
        has ``num_classes * (features + 1)`` parameters).
    """

    def gate(channels: Any) -> Any:
        hidden = np.maximum(4, channels // reduction)
        return 2 * channels * hidden + hidden + channels

    k, channels = growth_rate, stem_features
    trunk = (7 * 7 * 3 + 2) * channels if stem == "imagenet" else 3 * 3 * 3 * channels
    gates = dict.fromkeys(get_args(Position), 0)
    for number, n in enumerate(block_config, start=1):
        inputs = n * channels + k * (n * (n - 1) // 2)  # channels that enter the block's layers, added up
        if bottleneck is None:
            trunk = trunk + inputs * (2 + 9 * k)
        else:
            trunk = trunk + inputs * (2 + bottleneck * k) + n * bottleneck * k * (2 + 9 * k)
        channels = channels + n * k
        gates["layer"] = gates["layer"] + n * gate(k)
        gates["block"] = gates["block"] + gate(channels)
        if number < len(block_config):
            kept = np.asarray(channels * compression).astype(int)
            trunk = trunk + channels * (2 + kept)
            gates["transition"] = gates["transition"] + gate(kept)
            channels = kept
    return {"trunk": trunk + 2 * channels, **gates, "features": channels}


def nets_near(parameters: int, window: int = 0) -> pd.DataFrame:
    """Every net of `GRID` whose parameter count is within `window` of `parameters`: one row per net.

    Several reductions may give the same gates: that is one net, listed under the smallest. Without gates the reduction
    is None.

    Returns:
        Columns `block_config`, the other settings, `parameters`.
    """
    rows = []
    for blocks, stem, bottleneck, compression, reduction in product(
        *(GRID[name] for name in ("blocks", "stem", "bottleneck", "compression", "reduction"))
    ):
        axes = [GRID["depth"]] * blocks + [GRID["growth_rate"], GRID["stem_features"]]
        *depths, growth_rate, stem_features = (axis.ravel() for axis in np.meshgrid(*axes))
        fixed = {"stem": stem, "bottleneck": bottleneck, "compression": compression, "reduction": reduction}
        parts = expected_parameters(depths, growth_rate, stem_features, **fixed)
        for positions, num_classes in product(GRID["positions"], GRID["num_classes"]):
            gates = sum(parts[position] for position in positions)
            counts = parts["trunk"] + gates + num_classes * (parts["features"] + 1)
            rows += [
                {
                    "block_config": tuple(int(depth[row]) for depth in depths),
                    "growth_rate": int(growth_rate[row]),
                    "stem_features": int(stem_features[row]),
                    **fixed,
                    "reduction": reduction if positions else None,
                    "positions": positions,
                    "num_classes": num_classes,
                    "parameters": int(counts[row]),
                }
                for row in np.flatnonzero(np.abs(counts - parameters) <= window)
            ]
    columns = ["block_config", *list(GRID)[2:], "parameters"]
    nets = pd.DataFrame(rows, columns=columns, dtype=object)  # some settings may be None
    return nets.drop_duplicates([name for name in columns if name != "reduction"], ignore_index=True)


def grid_size() -> int:
    """How many settings `GRID` holds; a net without gates has no reduction."""
    depths = sum(len(GRID["depth"]) ** blocks for blocks in GRID["blocks"])
    gates = 1 + (len(GRID["positions"]) - 1) * len(GRID["reduction"])
    others = ("growth_rate", "stem_features", "stem", "bottleneck", "compression", "num_classes")
    return depths * gates * prod(len(GRID[name]) for name in others)
