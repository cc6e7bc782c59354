"""SE-DenseNet: DenseNet with squeeze-and-excitation gates, under torchvision's parameter names.

Papers: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, https://arxiv.org/abs/1608.06993 (the
bottleneck, compressed form: DenseNet-BC); Hu et al. 2018 for the gates (`histotransfer.models.se`).

Deviations: the reproduced paper (arXiv 2404.09226) does not state depth, growth rate, reduction ratio or where exactly
a gate sits; a third-party summary places gates "inside the dense blocks and in the transition layers". Here each of
three positions can be switched on: `layer` (a dense layer's new features), `block` (a block's whole output) and
`transition` (after its 1x1 convolution). `block` and `transition` are the default reading.

With gates off, or on and untrained, outputs equal torchvision's `densenet121` for the same weights.
"""

from collections.abc import Collection
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histotransfer.config import Position
from histotransfer.models.se import Gate, SqueezeExcite

DENSENET121 = (6, 12, 24, 16)


class DenseLayer(nn.Module):
    """H of Huang et al.: BN, ReLU, 1x1 convolution, BN, ReLU, 3x3 convolution; `growth_rate` new features.

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

    def __init__(self, layers: list[DenseLayer], se: nn.Module | None):
        super().__init__()
        for number, layer in enumerate(layers, start=1):
            self.add_module(f"denselayer{number}", layer)
        self.se = se

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.children():
            if isinstance(layer, DenseLayer):
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
    """DenseNet-BC with optional SE gates.

    Shapes: ``(N, 3, H, W)`` float32, ImageNet-normalised, H and W at least 32, to logits ``(N, num_classes)``.

    Args:
        num_classes: number of logits.
        block_config: dense layers in each block; the default is DenseNet-121's.
        growth_rate: new features of each dense layer (k of Huang et al.).
        bottleneck: the 1x1 convolution has ``bottleneck * growth_rate`` outputs.
        stem_features: channels after the first convolution.
        positions: where gates sit, any of `layer`, `block`, `transition`; empty for the plain DenseNet.
        reduction: r of the gates.
        gate: `identity` (exactly 1 until trained) or `standard`, see `histotransfer.models.se`.

    Raises:
        ValueError: an unknown position.
    """

    def __init__(
        self,
        num_classes: int = 2,
        *,
        block_config: tuple[int, ...] = DENSENET121,
        growth_rate: int = 32,
        bottleneck: int = 4,
        stem_features: int = 64,
        positions: Collection[Position] = ("block", "transition"),
        reduction: int = 16,
        gate: Gate = "identity",
    ):
        super().__init__()
        if unknown := set(positions) - set(get_args(Position)):
            raise ValueError(f"unknown SE position {sorted(unknown)}; choose from {get_args(Position)}")

        def se(position: Position, channels: int) -> SqueezeExcite | None:
            return SqueezeExcite(channels, reduction, gate) if position in positions else None

        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, stem_features, 7, stride=2, padding=3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(stem_features))
        self.features.add_module("relu0", nn.ReLU(inplace=True))
        self.features.add_module("pool0", nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        channels = stem_features
        for number, depth in enumerate(block_config, start=1):
            layers = [
                DenseLayer(channels + i * growth_rate, growth_rate, bottleneck, se("layer", growth_rate))
                for i in range(depth)
            ]
            channels += depth * growth_rate
            self.features.add_module(f"denseblock{number}", DenseBlock(layers, se("block", channels)))
            if number < len(block_config):
                transition = Transition(channels, channels // 2, se("transition", channels // 2))
                self.features.add_module(f"transition{number}", transition)
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation of convolutions, zero bias of the classifier: torchvision's choice, gates untouched."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def pooled(self, x: Tensor) -> Tensor:
        """The features that the classifier sees: ``(N, 3, H, W)`` to ``(N, C)``."""
        # The explicit ReLU matters: torchvision's `features` ends on norm5, and features pooled without it differ.
        return F.adaptive_avg_pool2d(F.relu(self.features(x), inplace=True), 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pooled(x))


def parameter_count(module: nn.Module) -> int:
    """Number of trainable numbers; BatchNorm's running statistics are not among them."""
    return sum(parameter.numel() for parameter in module.parameters())
