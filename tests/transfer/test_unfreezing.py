import pytest
import torch

from histotransfer.config import ladder_config
from histotransfer.models.se import SqueezeExcite
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.transfer.unfreezing import (
    FrozenPrefix,
    Suffix,
    group_rates,
    lowest_trained,
    module_groups,
    optimiser_groups,
    parameter_groups,
    run_groups,
)

GROUPS = ["stem", "block1", "block2", "block3", "block4", "head"]


def test_groups_by_hand(make_model):
    model = make_model()
    names = {id(module): name for name, module in model.named_modules()}
    groups = [
        (group, [names[id(m)].removeprefix("features.") for m in modules]) for group, modules in module_groups(model)
    ]
    assert groups == [
        ("stem", ["conv0", "norm0", "relu0", "pool0"]),
        ("block1", ["denseblock1", "transition1"]),
        ("block2", ["denseblock2", "transition2"]),
        ("block3", ["denseblock3", "transition3"]),
        ("block4", ["denseblock4", "norm5"]),
        ("head", ["classifier"]),
    ]


def test_every_parameter_is_in_one_group(make_model):
    model = make_model(positions=("layer", "block", "transition"))
    grouped = [id(p) for group in parameter_groups(model) for p in group]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize(
    ("stage", "trained"),
    [("head", GROUPS[5:]), ("block4", GROUPS[4:]), ("block3", GROUPS[3:]), ("block1", GROUPS[1:]), ("all", GROUPS)],
)
def test_a_stage_trains_its_group_and_all_above(make_model, stage, trained):
    model = make_model()
    assert [name for name, _ in module_groups(model)][lowest_trained(model, stage) :] == trained


def test_rates_fall_from_the_head_down(make_model):
    rates = group_rates(make_model(), 0.01, 0.1)
    assert rates == pytest.approx([1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    assert group_rates(make_model(), 0.5, 1) == [0.5] * 6


def test_the_optimiser_holds_every_parameter_once_and_gates_apart(make_model):
    model = make_model(positions=("layer", "block", "transition"))
    groups = optimiser_groups(model, ladder_config("phantom", {"learning_rate": 0.01, "gate_rate": 3}))
    assert sorted(id(p) for group in groups for p in group.parameters) == sorted(id(p) for p in model.parameters())
    names = {id(p): name for name, p in model.named_parameters()}
    gates = [group for group in groups if group.rate == pytest.approx(0.03)]
    assert [group.number for group in gates] == [1, 2, 3, 4]
    assert {names[id(p)] for group in gates for p in group.parameters} == {n for n in names.values() if ".se." in n}


def test_other_depths_have_as_many_groups_as_blocks():
    model = SEDenseNet(block_config=(1, 1), growth_rate=4, stem_features=8)
    assert [name for name, _ in module_groups(model)] == ["stem", "block1", "block2", "head"]


def test_the_frozen_prefix_is_in_eval_mode_while_the_rest_trains(make_model):
    model = make_model().train()
    FrozenPrefix([model.features.norm0, model.features.denseblock1]).before_train()
    training = {name for name, module in model.named_modules() if module.training}
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    frozen = {name for name in norms if name.startswith(("features.norm0", "features.denseblock1"))}
    assert norms - training == frozen
    assert len(frozen) == 5


def test_groups_one_after_the_other_are_the_network(make_model):
    model = make_model(positions=("layer", "block", "transition")).eval()
    for gate in (m for m in model.modules() if isinstance(m, SqueezeExcite)):
        torch.nn.init.normal_(gate.expand.weight)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        for cut in range(len(GROUPS) + 1):
            assert torch.equal(run_groups(model, run_groups(model, x, 0, cut), cut, len(GROUPS)), expected)
            assert torch.equal(Suffix(model, cut)(run_groups(model, x, 0, cut)), expected)
        assert torch.equal(run_groups(model, x, 0, 5), model.pooled(x))


def test_batchnorm_alone_may_train_below_the_head(make_model):
    model = make_model(positions=("block",))
    names = {id(p): name for name, p in model.named_parameters()}
    kept = [[names[id(p)] for p in group] for group in parameter_groups(model, only_batchnorm=True)]
    assert kept[-1] == ["classifier.weight", "classifier.bias"]
    below = [name for group in kept[:-1] for name in group]
    norms = [
        f"{n}.{p}" for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d) for p in ("weight", "bias")
    ]
    assert sorted(below) == sorted(norms)
