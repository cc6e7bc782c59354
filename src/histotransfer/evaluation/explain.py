"""Where a network looks, whether its maps can be believed, and what its gates do.

Papers: Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391 (Grad-CAM); Adebayo et al. 2018,
https://arxiv.org/abs/1810.03292 (sanity checks); Hu et al. 2018, section 7 (profiles of gates).

Deviations: maps keep their sign (Grad-CAM's last ReLU is left to the figure), since a map without any positive cell
still has a hottest cell. Adebayo et al. compare maps by several measures; here it is Spearman's rank
correlation over the cells of the map.
"""

import copy
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerGradCam
from scipy.stats import rankdata, t
from torch import Tensor, nn

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.intervals import LEVEL
from histotransfer.evaluation.pointing import mean_with_interval
from histotransfer.models.se import SqueezeExcite
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.tiles import Source
from histotransfer.transfer.unfreezing import module_groups

BATCH = 16  # gradients take 37 MB per image of 112 pixels
ANOTHER = "another image's map"


def _upright(source: Source) -> Iterator[Tensor]:
    """The items of a source in order, `BATCH` at a time."""
    for start in range(0, len(source), BATCH):
        rows = np.arange(start, min(start + BATCH, len(source)))
        yield source.batch(rows, np.zeros_like(rows))


def grad_cam(model: SEDenseNet, source: Source, targets: np.ndarray) -> np.ndarray:
    """Grad-CAM at the output of the last dense block (block 4 of DenseNet-121), after its gate.

    Args:
        model: in eval mode, on the CPU.
        source: N images.
        targets: ``(N,)`` index of the class whose logit is explained.

    Returns:
        ``(N, h, w)`` float32, signed: evidence for the class above 0, against it below.
    """
    *_, block = (module for name, module in model.features.named_children() if name.startswith("denseblock"))
    explainer, maps, done = LayerGradCam(model, block), [], 0
    for x in _upright(source):
        explained = torch.as_tensor(targets[done : done + len(x)])
        maps.append(explainer.attribute(x, target=explained).detach()[:, 0])
        done += len(x)
    return torch.cat(maps).numpy()


def rank_correlation(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each map with its counterpart: ``(N,)``; 0 where one of the two is constant."""
    ranks = [rankdata(each.reshape(len(each), -1), axis=1) for each in (maps, others)]
    a, b = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(a)), where=scale > 0)


def randomised(model: SEDenseNet, seed: int = 0) -> Iterator[tuple[str, SEDenseNet]]:
    """A copy whose weights are drawn anew from the head down: after each group, the group's name and the copy.

    Groups that were drawn anew stay so. BatchNorm is reset to its initial values, its statistics too.
    """
    model = copy.deepcopy(model)
    torch.manual_seed(seed)
    for name, modules in reversed(module_groups(model)):
        for module in (inner for outer in modules for inner in outer.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # as SEDenseNet begins
            elif isinstance(module, nn.Linear | nn.BatchNorm2d):
                module.reset_parameters()
        yield name, model


def sanity_check(
    model: SEDenseNet,
    source: Source,
    targets: np.ndarray,
    groups: np.ndarray,
    classes: np.ndarray,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """How much a map still resembles itself when the network's weights are drawn anew from the head down.

    A map that did not change would show the image, not what the network learned.

    Args:
        model: trained, in eval mode, on the CPU.
        source: N images.
        targets: ``(N,)`` index of the class whose logit is explained, at every step.
        groups: ``(N,)`` patients.
        classes: ``(N,)``.
        seed: of the new weights.

    Returns:
        One row per step (index: the group drawn anew last; head first, stem last): mean rank correlation with the
        trained network's map as `value`, `low`, `high`, `images`, `patients`. The last row is the baseline: the
        correlation with the trained network's map of another image.
    """
    maps = grad_cam(model, source, targets)
    order = np.random.default_rng(seed).permutation(len(maps))
    others = {name: grad_cam(changed, source, targets) for name, changed in randomised(model, seed)}
    others[ANOTHER] = maps[np.roll(order, 1)[np.argsort(order)]]
    rows = {
        name: mean_with_interval(rank_correlation(maps, other), groups, classes, least=-1)
        for name, other in others.items()
    }
    return pd.DataFrame(rows).T.astype({"images": int, "patients": int})


@torch.inference_mode()
def gates(model: SEDenseNet, source: Source) -> dict[str, np.ndarray]:
    """Every SE gate for every image: name of the gate's module to ``(N, C)``.

    Raises:
        HistotransferError: a network without gates.
    """
    recorded: dict[str, list[Tensor]] = {}
    hooks = []
    for name, module in model.features.named_modules():
        if isinstance(module, SqueezeExcite):
            values = recorded.setdefault(name.removesuffix(".se"), [])
            hooks.append(
                module.register_forward_hook(
                    lambda gate, inputs, output, values=values: values.append(gate.gates(inputs[0]))
                )
            )
    if not hooks:
        raise HistotransferError("gates: this network has none; train one with se_positions=block,transition")
    try:
        for x in _upright(source):
            model(x.to(model.classifier.weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(values).cpu().numpy() for name, values in recorded.items()}


def gate_profiles(values: dict[str, np.ndarray], groups: np.ndarray, classes: np.ndarray) -> pd.DataFrame:
    """Mean gate of every channel in each class, with t intervals over patients.

    Args:
        values: as `gates` returns them.
        groups: ``(N,)`` patients; each counts once, with the mean over its images.
        classes: ``(N,)``.

    Returns:
        One row per gate, channel and class: `gate`, `channel`, `class`, `patients`, `value`, `error` (standard), `low`,
        `high`.
    """
    rows = []
    for name, gate in values.items():
        patients = pd.DataFrame(gate).groupby([classes, groups]).mean()
        for label, means in patients.groupby(level=0):
            value, error = means.mean(), means.sem()
            reach = t.ppf((1 + LEVEL) / 2, len(means) - 1) * error
            columns = {"value": value, "error": error, "low": value - reach, "high": value + reach}
            about = {"gate": name, "channel": means.columns, "class": label, "patients": len(means)}
            rows.append(pd.DataFrame(about | columns))
    return pd.concat(rows, ignore_index=True)


def gate_differences(profiles: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """How far the gates of two classes differ, gate by gate.

    Args:
        profiles: as `gate_profiles` returns them.
        first: a class.
        second: another; a difference is the second's gate minus the first's.

    Returns:
        One row per gate (index): `channels`, `lowest` and `highest` mean gate of any channel and class, `largest`
        difference with `low` and `high`, and `apart`: how many channels' intervals (Welch, not corrected for multiple
        comparisons) exclude 0. By chance about one in twenty does, but channels are correlated.
    """
    rows = {}
    for name, gate in profiles.groupby("gate", sort=False):
        one, other = (gate[gate["class"] == label].reset_index(drop=True) for label in (first, second))
        gap, parts = other["value"] - one["value"], [each["error"] ** 2 for each in (one, other)]
        degrees = sum(part**2 / (each["patients"] - 1) for part, each in zip(parts, (one, other), strict=True))
        total = sum(parts)
        reach = (t.ppf((1 + LEVEL) / 2, total**2 / degrees) * total**0.5).fillna(0)  # a frozen gate is 1, without error
        at = gap.abs().idxmax()
        rows[name] = {
            "channels": len(gap),
            "lowest": gate["value"].min(),
            "highest": gate["value"].max(),
            "largest": gap[at],
            "low": gap[at] - reach[at],
            "high": gap[at] + reach[at],
            "apart": int(((gap.abs() > reach) & (total > 0)).sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
