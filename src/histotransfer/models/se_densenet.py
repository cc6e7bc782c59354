"""SE-DenseNet: DenseNet with squeeze-and-excitation gates, under torchvision's parameter names.

Papers: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, https://arxiv.org/abs/1608.06993: the
ImageNet nets of its table 1 and the CIFAR nets of its table 2, by name in `CONFIGURATIONS`; Hu et al. 2018 for the
gates (`histotransfer.models.se`).

Deviations:

* The reproduced paper (arXiv 2404.09226) does not state depth, growth rate, reduction ratio or where exactly a gate
  sits; a third-party summary places gates "inside the dense blocks and in the transition layers". Here each of three
  positions can be switched on: `layer` (a dense layer's new features), `block` (a block's whole output) and
  `transition` (after its 1x1 convolution). `block` and `transition` are the default reading.
* The same summary gives BN, ReLU, 3x3 convolution for H; DenseNet-121, which has published weights, puts a 1x1
  bottleneck before it (DenseNet-B). Both forms are here; the bottleneck is the default.
* No dropout: Huang et al. use it (0.2) on CIFAR without augmentation only.

With gates off, or on and untrained, outputs equal torchvision's DenseNets for the same weights.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histotransfer.config import Position
from histotransfer.models.se import Gate, SqueezeExcite

Stem = Literal["imagenet", "cifar"]
DENSENET121 = (6, 12, 24, 16)


def _cifar(depth: int, growth_rate: int) -> dict[str, Any]:
    """Keyword arguments of a net of table 2: three equal blocks, no bottleneck, no compression."""
    return {
        "block_config": ((depth - 4) // 3,) * 3,
        "growth_rate": growth_rate,
        "bottleneck": None,
        "compression": 1.0,
        "stem": "cifar",
        "stem_features": 16,
    }


def _cifar_bc(depth: int, growth_rate: int) -> dict[str, Any]:
    """The same with bottlenecks and compression: two convolutions per layer."""
    return {
        "block_config": ((depth - 4) // 6,) * 3,
        "growth_rate": growth_rate,
        "stem": "cifar",
        "stem_features": 2 * growth_rate,
    }


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "densenet121": {"block_config": DENSENET121},
    "densenet169": {"block_config": (6, 12, 32, 32)},
    "densenet201": {"block_config": (6, 12, 48, 32)},
    "densenet40-k12": _cifar(40, 12),
    "densenet100-k12": _cifar(100, 12),
    "densenet100-k24": _cifar(100, 24),
    "densenet-bc100-k12": _cifar_bc(100, 12),
    "densenet-bc250-k24": _cifar_bc(250, 24),
    "densenet-bc190-k40": _cifar_bc(190, 40),
}
"""Name to keyword arguments of `SEDenseNet`: Huang et al., tables 1 and 2."""


class BasicLayer(nn.Module):
    """H of Huang et al., section 3: BN, ReLU, 3x3 convolution; `growth_rate` new features.

    Shapes: a list of ``(N, C_i, H, W)`` in, ``(N, growth_rate, H, W)`` out.
    """

    def __init__(self, channels: int, growth_rate: int, se: nn.Module | None):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, growth_rate, kernel_size=3, padding=1, bias=False)
        self.se = se

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        return x if self.se is None else self.se(x)


class DenseLayer(nn.Module):
    """H with a bottleneck (DenseNet-B): BN, ReLU, 1x1 convolution, BN, ReLU, 3x3 convolution.

    Shapes: a list of ``(N, C_i, H, W)`` in, ``(N, growth_rate, H, W)`` out.
    """

    def __init__(self, channels: int, growth_rate: int, bottleneck: int, se: nn.Module | None):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, bottleneck * growth_rate, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck * growth_rate)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bottleneck * growth_rate, growth_rate, kernel_size=3, padding=1, bias=False)
        self.se = se

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        x = self.conv2(self.relu2(self.norm2(x)))
        return x if self.se is None else self.se(x)


class DenseBlock(nn.Module):
    """Layers that each see all features before them: ``(N, C, H, W)`` to ``(N, C + layers * growth_rate, H, W)``."""

    def __init__(self, layers: Sequence[DenseLayer | BasicLayer], se: nn.Module | None):
        super().__init__()
        for number, layer in enumerate(layers, start=1):
            self.add_module(f"denselayer{number}", layer)
        self.se = se

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.children():
            if layer is not self.se:
                features.append(layer(features))
        x = torch.cat(features, 1)
        return x if self.se is None else self.se(x)


class Transition(nn.Module):
    """BN, ReLU, 1x1 convolution, [gate], 2x2 average pool: ``(N, C, H, W)`` to ``(N, C_out, H // 2, W // 2)``."""

    def __init__(self, channels: int, out_channels: int, se: nn.Module | None):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, out_channels, kernel_size=1, bias=False)
        self.se = se
        self.pool = nn.AvgPool2d(kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.relu(self.norm(x)))
        return self.pool(x if self.se is None else self.se(x))


class SEDenseNet(nn.Module):
    """DenseNet with optional SE gates; DenseNet-121 with gates in blocks and transitions by default.

    Shapes: ``(N, 3, H, W)`` float32, ImageNet-normalised, H and W at least 32, to logits ``(N, num_classes)``.

    Args:
        num_classes: number of logits.
        block_config: dense layers in each block.
        growth_rate: new features of each dense layer (k of Huang et al.).
        bottleneck: a layer's 1x1 convolution has ``bottleneck * growth_rate`` outputs; None: it has none.
        compression: a transition keeps this share of its channels (theta of Huang et al.), rounded down.
        stem: `imagenet` is a 7x7 convolution and a pooling, which leave a quarter of the resolution; `cifar` is a 3x3
            convolution at full resolution.
        stem_features: channels after the stem.
        positions: where gates sit, any of `layer`, `block`, `transition`; empty for the plain DenseNet.
        first_gated_block: gates sit in this block (from 1) and those after it, each with its transition.
        reduction: r of the gates.
        gate: `identity` (exactly 1 until trained) or `standard`, see `histotransfer.models.se`.

    Raises:
        ValueError: an unknown position or stem.
    """

    def __init__(
        self,
        num_classes: int = 2,
        *,
        block_config: Sequence[int] = DENSENET121,
        growth_rate: int = 32,
        bottleneck: int | None = 4,
        compression: float = 0.5,
        stem: Stem = "imagenet",
        stem_features: int = 64,
        positions: Collection[Position] = ("block", "transition"),
        first_gated_block: int = 1,
        reduction: int = 16,
        gate: Gate = "identity",
    ):
        super().__init__()
        if unknown := set(positions) - set(get_args(Position)):
            raise ValueError(f"unknown SE position {sorted(unknown)}; choose from {get_args(Position)}")
        if stem not in get_args(Stem):
            raise ValueError(f"unknown stem {stem!r}; choose from {get_args(Stem)}")

        def se(position: Position, channels: int, block: int) -> SqueezeExcite | None:
            gated = position in positions and block >= first_gated_block
            return SqueezeExcite(channels, reduction, gate) if gated else None

        def layer(channels: int, block: int) -> DenseLayer | BasicLayer:
            gate_of_layer = se("layer", growth_rate, block)
            if bottleneck is None:
                return BasicLayer(channels, growth_rate, gate_of_layer)
            return DenseLayer(channels, growth_rate, bottleneck, gate_of_layer)

        self.features = nn.Sequential()
        if stem == "imagenet":
            self.features.add_module("conv0", nn.Conv2d(3, stem_features, 7, stride=2, padding=3, bias=False))
            self.features.add_module("norm0", nn.BatchNorm2d(stem_features))
            self.features.add_module("relu0", nn.ReLU(inplace=True))
            self.features.add_module("pool0", nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        else:
            self.features.add_module("conv0", nn.Conv2d(3, stem_features, 3, padding=1, bias=False))
        channels = stem_features
        for number, depth in enumerate(block_config, start=1):
            layers = [layer(channels + i * growth_rate, number) for i in range(depth)]
            channels += depth * growth_rate
            self.features.add_module(f"denseblock{number}", DenseBlock(layers, se("block", channels, number)))
            if number < len(block_config):
                kept = int(channels * compression)
                transition = Transition(channels, kept, se("transition", kept, number))
                self.features.add_module(f"transition{number}", transition)
                channels = kept
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation of convolutions, zero bias of the classifier: torchvision's choice, gates untouched."""
        for module in self.modules():
            # On the meta device there is nothing to fill, and PyTorch would load its compiler to find that out.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def pooled(self, x: Tensor) -> Tensor:
        """The features that the classifier sees: ``(N, 3, H, W)`` to ``(N, C)``."""
        return self.pool(self.features(x))

    @staticmethod
    def pool(x: Tensor) -> Tensor:
        """Rectified means: the output of `features`, ``(N, C, H', W')``, to ``(N, C)``; `x` is overwritten."""
        # The explicit ReLU matters: torchvision's `features` ends on norm5, and features pooled without it differ.
        return F.adaptive_avg_pool2d(F.relu(x, inplace=True), 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pooled(x))


class WithFeatures(nn.Module):
    """A network whose output is its logits, and then what its first transition gives on average over the field.

    Shapes: as the network's, to ``(N, num_classes + channels)``; a network of one block has no transition: 0 channels.
    """

    def __init__(self, model: SEDenseNet):
        super().__init__()
        self.model = model
        self.channels = next((each.conv.out_channels for each in model.features if isinstance(each, Transition)), 0)

    def forward(self, x: Tensor) -> Tensor:
        means: list[Tensor] = []
        for module in self.model.features:
            x = module(x)
            if isinstance(module, Transition) and not means:
                means.append(x.mean(dim=(2, 3)))
        return torch.cat([self.model.classifier(self.model.pool(x)), *means], dim=1)


class OnArrays:
    """A network in eval mode as a function of arrays, as `models.openvino.OpenVINONetwork` is one.

    Args:
        model: is put into eval mode, its weights into the order in memory that is fastest.
    """

    def __init__(self, model: nn.Module):
        self.model = model.eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.model(torch.from_numpy(x)).numpy()


def parameter_count(module: nn.Module) -> int:
    """Number of parameters; BatchNorm's running statistics are not counted."""
    return sum(parameter.numel() for parameter in module.parameters())
