"""Which weights a stage trains: the network in groups from the stem to the head, unfrozen from the head down.

Papers: Yosinski et al. 2014, https://arxiv.org/abs/1411.1792 (shallow layers are general, deep ones specific); Howard
and Ruder 2018, https://arxiv.org/abs/1801.06146 (gradual unfreezing, discriminative rates).

A group holds a dense block with the transition after it; gates belong to their block. Deviation from fastai's own
`freeze_to`: a frozen group is frozen whole: its BatchNorm weights get no gradient and its running statistics do not
change (fastai keeps training BatchNorm, see its `train_bn`). Only then is a frozen prefix a constant function.
"""

from dataclasses import dataclass

from fastai.callback.core import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from histotransfer.config import LadderConfig, Stage
from histotransfer.models.se import SqueezeExcite
from histotransfer.models.se_densenet import SEDenseNet


def module_groups(model: SEDenseNet) -> list[tuple[str, list[nn.Module]]]:
    """The network's modules in order, by group: stem, block1, block2, ..., head."""
    groups: list[tuple[str, list[nn.Module]]] = [("stem", [])]
    for name, module in model.features.named_children():
        if name.startswith("denseblock"):
            groups.append((name.replace("dense", ""), []))
        groups[-1][1].append(module)
    return [*groups, ("head", [model.classifier])]


def run_groups(model: SEDenseNet, x: Tensor, start: int, stop: int) -> Tensor:
    """Apply the groups `start` to ``stop - 1``; all of them one after the other are the network.

    Shapes: images ``(N, 3, H, W)`` enter group 0; activations ``(N, C, H', W')`` pass between groups; the last group
    before the head ends in pooled features ``(N, C)``, the head in logits ``(N, classes)``.
    """
    groups = module_groups(model)
    for number, (_, modules) in enumerate(groups[start:stop], start=start):
        for module in modules:
            x = module(x)
        if number == len(groups) - 2:  # norm5 has run: the rest of `SEDenseNet.pooled`
            x = F.adaptive_avg_pool2d(F.relu(x), 1).flatten(1)
    return x


class Suffix(nn.Module):
    """The part of a network from group `start` on: activations at that cut to logits; from 0 the whole network."""

    def __init__(self, model: SEDenseNet, start: int):
        super().__init__()
        self.model, self.start = model, start

    def forward(self, x: Tensor) -> Tensor:
        return run_groups(self.model, x, self.start, len(module_groups(self.model)))


def parameter_groups(model: SEDenseNet, *, only_batchnorm: bool = False) -> list[list[nn.Parameter]]:
    """The parameters of each group that may train, as fastai's `splitter` returns them.

    Args:
        model: the network.
        only_batchnorm: below the head, only BatchNorm's scales and shifts (Frankle et al. 2020,
            https://arxiv.org/abs/2003.00152, trained nothing else).
    """

    def trains(module: nn.Module) -> bool:
        return not only_batchnorm or module is model.classifier or isinstance(module, nn.BatchNorm2d)

    return [
        [p for module in modules for part in module.modules() if trains(part) for p in part.parameters(recurse=False)]
        for _, modules in module_groups(model)
    ]


@dataclass(frozen=True)
class OptimiserGroup:
    """Parameters that learn at one rate.

    Attributes:
        number: of the group of the network that they belong to.
        parameters: that may train.
        rate: their peak rate.
    """

    number: int
    parameters: list[nn.Parameter]
    rate: float


def optimiser_groups(model: SEDenseNet, config: LadderConfig) -> list[OptimiserGroup]:
    """`parameter_groups` with the rates of `group_rates`, the gates of each group apart.

    Gates are as new as the head is: they learn at a rate of their own, relative to the head's (`gate_rate`).
    """
    gates = {p for gate in model.modules() if isinstance(gate, SqueezeExcite) for p in gate.parameters()}
    groups = parameter_groups(model, only_batchnorm=config.unfreeze == "batchnorm")
    rates = group_rates(model, config.learning_rate, config.rate_decay)
    split = []
    for number, (group, rate) in enumerate(zip(groups, rates, strict=True)):
        gated = [p for p in group if p in gates]
        split.append(OptimiserGroup(number, [p for p in group if p not in gates], rate))
        if gated:
            split.append(OptimiserGroup(number, gated, config.learning_rate * config.gate_rate))
    return split


def lowest_trained(model: SEDenseNet, stage: Stage) -> int:
    """Index of the lowest group that `stage` trains; all groups above it train too."""
    names = [name for name, _ in module_groups(model)]
    return 0 if stage == "all" else names.index(stage)


def frozen_modules(model: SEDenseNet, stage: Stage) -> list[nn.Module]:
    """The modules of all groups below the lowest that `stage` trains."""
    below = module_groups(model)[: lowest_trained(model, stage)]
    return [module for _, modules in below for module in modules]


def group_rates(model: SEDenseNet, rate: float, decay: float) -> list[float]:
    """Discriminative rates: `rate` for the head, ``decay`` times as much for each group further down."""
    count = len(module_groups(model))
    return [rate * decay ** (count - 1 - i) for i in range(count)]


class FrozenPrefix(Callback):
    """Keep the frozen groups in eval mode while the rest trains, so that BatchNorm statistics do not change."""

    order = 0  # after fastai's TrainEvalCallback (-10), which puts the whole network into train mode

    def __init__(self, modules: list[nn.Module]):
        self.modules = modules

    def before_train(self) -> None:
        for module in self.modules:
            module.eval()
