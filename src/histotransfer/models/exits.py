"""Early exits: the trunk cut off after a transition, its features pooled, under a linear classifier.

Paper: Teerapittayanon, McDanel, Kung 2016, "BranchyNet", https://arxiv.org/abs/1709.01686. Deviations: each exit is a
separate net, and nothing decides image by image where to stop; the only layer that an exit adds is its classifier.
"""

from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histotransfer.models.se_densenet import SEDenseNet, Transition
from histotransfer.tiles import Source

Exit = Literal["transition1", "transition2", "transition3", "block4"]
EXITS: tuple[Exit, ...] = get_args(Exit)


class EarlyExit(nn.Module):
    """A DenseNet-121 up to an exit: ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

    Args:
        model: the net whose modules it shares.
        name: the last of these modules; `block4` is the whole trunk with its final norm and ReLU.
        num_classes: number of logits.
    """

    def __init__(self, model: SEDenseNet, name: Exit, num_classes: int = 2):
        super().__init__()
        modules = dict(model.features.named_children())
        if name == "block4":
            kept, channels = [*modules.values(), nn.ReLU()], cast(nn.BatchNorm2d, modules["norm5"]).num_features
        else:
            kept = list(modules.values())[: list(modules).index(name) + 1]
            channels = cast(Transition, kept[-1]).conv.out_channels
        self.features = nn.Sequential(*kept)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean(dim=(2, 3)))


@torch.inference_mode()
def exit_features(model: SEDenseNet, source: Source, batch_size: int = 32) -> dict[Exit, np.ndarray]:
    """The inputs of each exit's classifier for N upright images, in one pass: ``(N, C)`` float32 per exit.

    Args:
        model: a DenseNet-121 on the CPU; left in eval mode.
        source: N images.
        batch_size: images at a time.
    """
    pooled: dict[str, list[Tensor]] = {name: [] for name in EXITS}
    model.eval()
    for start in range(0, len(source), batch_size):
        rows = np.arange(start, min(start + batch_size, len(source)))
        x = source.batch(rows, np.zeros_like(rows))
        for name, module in model.features.named_children():
            x = module(x)
            if name in pooled:
                pooled[name].append(x.mean(dim=(2, 3)))
        pooled["block4"].append(F.relu(x).mean(dim=(2, 3)))
    return {name: torch.cat(pooled[name]).numpy() for name in EXITS}
