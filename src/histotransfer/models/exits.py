"""Early exits: the trunk cut off after a transition, its features pooled, under a linear classifier.

Paper: Teerapittayanon, McDanel, Kung 2016, "BranchyNet", https://arxiv.org/abs/1709.01686. Deviations: each exit is a
net by itself, nothing decides image by image where to stop; and an exit has no layers of its own but the classifier.
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.tiles import Source

Exit = Literal["transition1", "transition2", "transition3", "block4"]
EXITS: tuple[Exit, ...] = get_args(Exit)


class EarlyExit(nn.Module):
    """A DenseNet-121 up to an exit: ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

    Args:
        model: whose modules it shares.
        leave: the last of them; `block4` is the whole trunk with its final norm and ReLU.
        num_classes: number of logits.
    """

    def __init__(self, model: SEDenseNet, leave: Exit, num_classes: int = 2):
        super().__init__()
        modules, names = list(model.features), [name for name, _ in model.features.named_children()]
        if leave == "block4":
            modules, channels = [*modules, nn.ReLU()], model.features.norm5.num_features
        else:
            modules = modules[: names.index(leave) + 1]
            channels = modules[-1].conv.out_channels
        self.features = nn.Sequential(*modules)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean(dim=(2, 3)))


@torch.inference_mode()
def exit_features(model: SEDenseNet, source: Source, batch_size: int = 32) -> dict[Exit, np.ndarray]:
    """What each exit's classifier sees, for N images, upright, in one pass: ``(N, C)`` float32 an exit.

    Args:
        model: a DenseNet-121 on the CPU; left in eval mode.
        source: N images.
        batch_size: images at a time.
    """
    found: dict[Exit, list[Tensor]] = {leave: [] for leave in EXITS}
    model.eval()
    for start in range(0, len(source), batch_size):
        rows = np.arange(start, min(start + batch_size, len(source)))
        x = source.batch(rows, np.zeros_like(rows))
        for name, module in model.features.named_children():
            x = module(x)
            if name in found:
                found[name].append(x.mean(dim=(2, 3)))
        found["block4"].append(F.relu(x).mean(dim=(2, 3)))
    return {leave: torch.cat(features).numpy() for leave, features in found.items()}
