"""Chapter 03: channels, gates, and a layer that can be folded away."""

from collections.abc import Callable

import torch
from torch import nn

from histotransfer.book.exercises import require, self_check
from histotransfer.models.se import SqueezeExcite
from histotransfer.models.se_densenet import parameter_count


@self_check
def check_channels(channels: int) -> str:
    """Exercise `ex-densenet-channels`: channels after six layers of growth rate 32 on 64, and a transition."""
    require(channels != 64 + 6 * 32, "so many leave the block; the transition keeps half of them")
    require(channels != 32, "a layer hands on 32 new channels, but the block's output stacks all that was there before")
    require(channels == (64 + 6 * 32) // 2, f"{channels} is not it: k0 + l k channels leave the block")
    return "and so the network does not drown in channels, though every layer sees all before it."


@self_check
def check_gate_parameters(gate_parameters: Callable[[int, int], int]) -> str:
    """Exercise `ex-densenet-gate`: parameters of one SE gate."""
    for channels, reduction in ((256, 16), (512, 8), (32, 16), (100, 16)):
        expected = parameter_count(SqueezeExcite(channels, reduction))
        counted = gate_parameters(channels, reduction)
        hidden = max(4, channels // reduction)
        about = f"C = {channels}, r = {reduction}: you count {counted}, the module has {expected}"
        require(counted != 2 * channels * hidden, f"{about}; both layers also have biases")
        floor = "; the hidden width is never below 4" if hidden == 4 else ""
        require(counted == expected, about + floor)
    return "two thin layers a gate: cheap in operations, and not nothing in parameters."


@self_check
def check_fold(fold: Callable[[nn.Conv2d, nn.BatchNorm2d], nn.Conv2d]) -> str:
    """Exercise `ex-densenet-fold`: one convolution that computes a convolution and the BatchNorm behind it."""
    generator = torch.Generator().manual_seed(0)
    for with_bias in (False, True):
        conv = nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=with_bias)
        norm = nn.BatchNorm2d(6, eps=1e-2).eval()
        with torch.no_grad():
            for tensor in (*conv.parameters(), norm.weight, norm.bias, norm.get_buffer("running_mean")):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            norm.get_buffer("running_var").copy_(torch.rand(6, generator=generator) + 0.05)
            images = torch.randn(2, 8, 9, 9, generator=generator)
            before, expected = conv(images), norm(conv(images))
            folded = fold(conv, norm)
            require(
                torch.equal(conv(images), before), "the convolution it was given must stay as it was: make a new one"
            )
            require(isinstance(folded, nn.Conv2d), "return one `nn.Conv2d`")
            require(folded.bias is not None, "without a bias the means cannot be taken off")
            output = folded(images)
        require(output.shape == expected.shape, "stride and padding must come along")
        off = float((output - expected).abs().max())
        require(
            off < 1e-4, f"off by {off:.2g} (bias of the convolution: {with_bias}); did eps, mean and bias come along?"
        )
    return "equal to rounding, and one pass over memory less: exported networks do this."
