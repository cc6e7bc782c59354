"""A small network with random weights in DenseNet-121's place, for tests of what is done with a network.

`shrink` does so in the process that calls it. As a script this is `histotransfer` with the small network, and as a
preload it gives it to a Dask worker.
"""

import torch

from histotransfer.cli import main
from histotransfer.experiments import adapting, probe
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import Trunk, content_hash, imagenet_trunk
from histotransfer.study import runner
from histotransfer.transfer import stages

SMALL = {"block_config": (2, 2, 2, 2), "growth_rate": 8, "stem_features": 16}
ARCHITECTURE = stages.architecture


def architecture(classes, config):
    return ARCHITECTURE(classes, config) | SMALL


def trunk(weights=""):
    if weights:
        return imagenet_trunk(weights)
    torch.manual_seed(0)
    features = SEDenseNet(**SMALL, positions=()).features.state_dict()
    state = {f"features.{name}": value for name, value in features.items()}
    return Trunk(state, "small_network.py", content_hash(state))


def shrink(replace=setattr):
    for module in (stages, runner):
        replace(module, "architecture", architecture)
    for module in (runner, probe, adapting):
        replace(module, "imagenet_trunk", trunk)


def dask_setup(worker):
    shrink()


if __name__ == "__main__":
    shrink()
    main()
