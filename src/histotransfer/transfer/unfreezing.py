"""Which weights a stage trains: the network in groups from the stem to the head, thawed from the head down.

Papers: Yosinski et al. 2014, https://arxiv.org/abs/1411.1792 (shallow layers are general, deep ones specific); Howard
and Ruder 2018, https://arxiv.org/abs/1801.06146 (gradual unfreezing, discriminative rates).

A group holds a dense block with the transition after it; gates belong to their block. Deviation from fastai's own
`freeze_to`: a frozen group is frozen whole, its BatchNorm weights get no gradient and its running statistics stand
still (fastai keeps BatchNorm training, see its `train_bn`). Only so is a frozen prefix a constant function.
"""

from fastai.callback.core import Callback
from torch import nn

from histotransfer.config import Stage
from histotransfer.models.se_densenet import SEDenseNet


def module_groups(model: SEDenseNet) -> list[tuple[str, list[nn.Module]]]:
    """The network's modules in order, by group: stem, block1, block2, ..., head."""
    groups: list[tuple[str, list[nn.Module]]] = [("stem", [])]
    for name, module in model.features.named_children():
        if name.startswith("denseblock"):
            groups.append((name.replace("dense", ""), []))
        groups[-1][1].append(module)
    return [*groups, ("head", [model.classifier])]


def parameter_groups(model: SEDenseNet) -> list[list[nn.Parameter]]:
    """The same groups as lists of parameters: fastai's `splitter`."""
    return [[p for module in modules for p in module.parameters()] for _, modules in module_groups(model)]


def first_thawed(model: SEDenseNet, stage: Stage) -> int:
    """Index of the lowest group that `stage` trains; all groups above it train too."""
    names = [name for name, _ in module_groups(model)]
    return 0 if stage == "all" else names.index(stage)


def group_rates(model: SEDenseNet, rate: float, decay: float) -> list[float]:
    """Discriminative rates: `rate` for the head, ``decay`` times as much for each group further down."""
    count = len(module_groups(model))
    return [rate * decay ** (count - 1 - i) for i in range(count)]


class FrozenPrefix(Callback):
    """Keep the frozen groups in eval mode while the rest trains, so that BatchNorm statistics stand still."""

    order = 0  # after fastai's TrainEvalCallback (-10), which puts the whole network into train mode

    def __init__(self, modules: list[nn.Module]):
        self.modules = modules

    def before_train(self) -> None:
        for module in self.modules:
            module.eval()
