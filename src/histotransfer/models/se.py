"""Squeeze-and-excitation (SE) gates.

Paper: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, https://arxiv.org/abs/1709.01507, equations 2 to 4.

Deliberate deviations:

* `gate="identity"` uses ``2 * sigmoid(z)`` with the last layer zero, so that a gate is exactly 1 at the start and
  a network with published weights computes what it computed before the gates were added. `gate="standard"` is the
  paper's ``sigmoid(z)`` with the usual random initialisation.
* The hidden width is ``max(4, C // r)``, so that narrow layers (32 new features) keep some room.
* Both layers have biases, which equation 3 leaves out; most implementations have them.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Gate = Literal["identity", "standard"]


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels.

    Shapes: ``(N, C, H, W)`` in and out. Gates lie in (0, 2) for `gate="identity"` and in (0, 1) for `"standard"`.

    Args:
        channels: C, at least 1.
        reduction: r of the paper; the hidden width is ``max(4, C // r)``.
        gate: which non-linearity and initialisation, see the module's docstring.
    """

    def __init__(self, channels: int, reduction: int = 16, gate: Gate = "identity"):
        super().__init__()
        hidden = max(4, channels // reduction)
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)
        self.scale = 2.0 if gate == "identity" else 1.0
        if gate == "identity":
            # sigmoid(0) is exactly 0.5, and its slope is largest there: the gate is 1 and still learns at once.
            nn.init.zeros_(self.expand.weight)
            nn.init.zeros_(self.expand.bias)

    def gates(self, x: Tensor) -> Tensor:
        """The gate of every channel, ``(N, C)``, for activations `x` of ``(N, C, H, W)``."""
        squeezed = x.mean(dim=(2, 3))  # equation 2
        return self.scale * torch.sigmoid(self.expand(torch.relu(self.reduce(squeezed))))  # equation 3

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates(x)[:, :, None, None]  # equation 4
