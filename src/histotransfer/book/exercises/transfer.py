"""Chapter 04: what a stage costs, what a view is, what frozen means."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from histotransfer.book.exercises import NotYet, require, self_check
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.transfer.unfreezing import Suffix, lowest_trained, module_groups, parameter_groups, run_groups

TOLERANCE = 0.2


@self_check
def check_views(views: Callable[[np.ndarray], Sequence[np.ndarray]]) -> str:
    """Exercise `ex-transfer-views`: the symmetric views that keep a picture's shape."""
    for shape, count in (((6, 6, 3), 8), ((4, 6, 3), 4)):
        image = np.arange(np.prod(shape)).reshape(shape)
        given = [np.asarray(view) for view in views(image)]
        require(
            all(view.shape == shape for view in given), f"a view of a {shape[0]} x {shape[1]} picture has its shape"
        )
        different = {view.tobytes() for view in given}
        require(len(different) == len(given), "some views are the same")
        channels = {tuple(pixel) for pixel in image.reshape(-1, 3)}
        moved = all({tuple(pixel) for pixel in view.reshape(-1, 3)} == channels for view in given)
        require(moved, "a view moves whole pixels; it changes no colour")
        require(
            len(given) == count, f"{shape[0]} x {shape[1]} has {count} views, you give {len(given)}: turns and mirrors"
        )
    return "a finite list: the frozen part of a network needs to see each view once."


@self_check
def check_cost(times: float) -> str:
    """Exercise `ex-transfer-cost`: multiply-adds above transition 2 against those above transition 3."""
    with torch.device("meta"):
        model = SEDenseNet(positions=()).eval()
    above, weights = {}, {}
    for stage in ("block4", "block3"):
        cut = lowest_trained(model, stage)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            before = run_groups(model, torch.empty(1, 3, 224, 224, device="meta"), 0, cut)
            below = counter.get_total_flops()
            Suffix(model, cut)(before)
        above[stage] = counter.get_total_flops() - below
        weights[stage] = sum(p.numel() for group in parameter_groups(model)[cut:] for p in group)
    truth, by_weights = above["block3"] / above["block4"], weights["block3"] / weights["block4"]
    if abs(times / by_weights - 1) < TOLERANCE:
        raise NotYet(f"{times:.1f} is the growth in parameters; each of them now works on a map four times as large")
    require(abs(times / truth - 1) < TOLERANCE, f"{times:.1f} is more than {TOLERANCE:.0%} off")
    return f"{truth:.1f} times the operations for {by_weights:.1f} times the parameters."


@self_check
def check_prepare(prepare: Callable[[nn.Module, nn.Module], nn.Module]) -> str:
    """Exercise `ex-transfer-freeze`: after an epoch the frozen part computes what it computed before."""
    torch.manual_seed(0)
    frozen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 6 * 6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model, images, targets = nn.Sequential(frozen, head), torch.randn(16, 3, 8, 8) + 2, torch.arange(16) % 2
    frozen.eval()
    with torch.no_grad():
        before = frozen(images)
    counted = head[2].get_buffer("running_mean").clone()
    for _ in range(2):
        prepared = prepare(model, frozen)
        require(prepared is model, "return the model that was given")
        require(head.training, "the head must be in train mode")
        seen = frozen(images)
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        nn.functional.cross_entropy(model(images), targets).backward()
        optimiser.step()
        require(not any(p.requires_grad for p in frozen.parameters()), "frozen weights still ask for gradients")
        require(torch.equal(seen, before), "in training the frozen part says something else: dropout, BatchNorm?")
    frozen.eval()
    require(torch.equal(frozen(images), before), "after training the frozen part says something else: what changed?")
    require(not torch.equal(head[2].get_buffer("running_mean"), counted), "the head did not train")
    return f"no gradient and eval mode, both: so {len(module_groups(SEDenseNet(positions=())))} groups can be cached."
