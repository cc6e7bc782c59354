"""Chapter 10: what may be looked at when choosing, what BatchNorm alone can train, what the best of many is worth."""

from collections.abc import Callable, Iterable

import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from histotransfer.book.exercises import letters, require, self_check
from histotransfer.models.se_densenet import SEDenseNet, parameter_count

MAY = {"a", "c", "e"}


@self_check
def check_may(may: Iterable[str]) -> str:
    """Exercise `ex-strategy-choice`: what may be looked at when a recipe is chosen."""
    chosen = letters(may)
    require("b" not in chosen, "(b) is tuning on the test patients, whoever else was tested as well")
    require("d" not in chosen, "(d) looks at test patients one by one; it may explain a result, not choose a recipe")
    require(chosen == MAY, f"{len(MAY - chosen)} more may be looked at: no test patient is in it")
    return "what was chosen without test patients may be tested on them, once."


@self_check
def check_batchnorm_share(batchnorm_share: Callable[[nn.Module], float]) -> str:
    """Exercise `ex-strategy-batchnorm`: the share of a network's parameters that are BatchNorm's."""
    with torch.device("meta"):
        model = SEDenseNet(positions=())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    trained = sum(p.numel() for module in norms for p in module.parameters())
    kept = sum(tensor.numel() for module in norms for tensor in module.state_dict().values())
    whole, share = parameter_count(model), float(batchnorm_share(model))
    require(abs(share - kept / whole) > 1e-6, "running means and variances are counted, not trained")
    require(abs(share - trained / whole) < 1e-9, f"{share:.4f}: scales and shifts of BatchNorm over all parameters")
    return f"{trained / whole:.1%} of {whole:,} parameters; the study trains these few alone, too."


@self_check
def check_luck(luck: Callable[[int], float]) -> str:
    """Exercise `ex-strategy-luck`: how far the best of n equal arms looks above the truth, in standard errors."""
    for n in (1, 2, 5, 20):
        expected = quad(lambda x, n=n: n * x * norm.pdf(x) * norm.cdf(x) ** (n - 1), -10, 10)[0]
        gain = float(luck(n))
        require(n == 1 or abs(gain) > 0.1, f"best of {n}: {gain:.2f}; the largest of several is not average")
        require(abs(gain - expected) < 0.03, f"best of {n}: {gain:.2f}, where it should be about {expected:.2f}")
    return f"the best of 20 arms that are all the same looks {expected:.1f} standard errors better than it is."
