import copy
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight

from histotransfer.config import ladder_config
from histotransfer.errors import HistotransferError
from histotransfer.tiles import TileSource
from histotransfer.transfer import training
from histotransfer.transfer.training import (
    Batches,
    check_device,
    class_weights,
    pooled_features,
    predict_logits,
    train_stage,
)
from histotransfer.transfer.unfreezing import module_groups

GROUPS = ["stem", "block1", "block2", "block3", "block4", "head"]
UNFROZEN = {"head": GROUPS[5:], "block4": GROUPS[4:], "block3": GROUPS[3:], "block2": GROUPS[2:], "block1": GROUPS[1:]}
UNFROZEN["all"] = GROUPS


class Echo:
    """A source whose batches say which rows they were asked for, in which view."""

    def __init__(self, count, views=8):
        self.count, self.views = count, views

    def __len__(self):
        return self.count

    def batch(self, rows, views):
        return torch.from_numpy(np.stack([rows, views], axis=1))


def drawn(batches):
    """(row, view, target) of each item of one pass."""
    return [(*x, y) for xs, ys in batches for x, y in zip(xs.tolist(), ys.tolist(), strict=True)]


def test_evaluation_sees_every_row_once_in_order_and_upright():
    batches = Batches(Echo(10), np.arange(10) * 3, 4, None, "cpu")
    assert len(batches) == len(list(batches)) == 3
    assert drawn(batches) == drawn(batches) == [(row, 0, row * 3) for row in range(10)]


def test_training_order_follows_from_seed_and_epoch_alone():
    def passes(seed):
        batches = Batches(Echo(32), np.arange(32) * 3, 8, seed, "cpu")
        torch.manual_seed(len(seeds))  # a global generator must not matter
        np.random.seed(len(seeds))  # noqa: NPY002
        seeds.append(seed)
        return [drawn(batches) for _ in range(3)]

    seeds = []
    assert passes((0, 1)) == passes((0, 1))
    assert passes((0, 1))[0] != passes((0, 2))[0]
    first, second, third = passes((0, 1))
    assert first != second != third != first
    for epoch in (first, second, third):
        assert Counter(row for row, _, _ in epoch) == Counter(range(32))
        assert all(target == 3 * row for row, _, target in epoch)


def test_an_epoch_can_be_repeated_without_the_ones_before_it():
    batches = Batches(Echo(16), np.zeros(16), 4, (5,), "cpu")
    epochs = [drawn(batches) for _ in range(3)]
    later = Batches(Echo(16), np.zeros(16), 4, (5,), "cpu")
    later.epoch = 2
    assert drawn(later) == epochs[2]


def test_all_views_are_drawn_and_no_other():
    for views in (4, 8):
        batches = Batches(Echo(200, views), np.zeros(200), 50, (0,), "cpu")
        assert {view for _, view, _ in drawn(batches)} == set(range(views))


@pytest.mark.parametrize(("count", "batches", "seen"), [(10, 2, 8), (8, 2, 8), (3, 1, 3)])
def test_an_incomplete_training_batch_is_left_out_unless_it_is_the_only_one(count, batches, seen):
    training_batches = Batches(Echo(count), np.zeros(count), 4, (0,), "cpu")
    assert len(training_batches) == batches
    assert len(drawn(training_batches)) == seen


def test_balanced_sampling_draws_every_class_equally_often():
    targets = np.array([0] * 90 + [1] * 10)
    batches = Batches(Echo(100), targets, 10, (0,), "cpu", balanced=True)
    counts = np.mean([Counter(target for _, _, target in drawn(batches))[1] for _ in range(50)])
    assert counts == pytest.approx(50, abs=2)  # 50 epochs of 100 draws: a standard error of 0.7
    again = Batches(Echo(100), targets, 10, (0,), "cpu", balanced=True)
    again.epoch = 49
    batches.epoch = 49
    assert drawn(again) == drawn(batches)


def test_class_weights_are_scikit_learns():
    targets = np.array([0] * 7 + [1] * 2 + [2] * 3)
    weights = class_weights(targets, 3)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights[targets].mean() == pytest.approx(1)
    assert weights.dtype == torch.float32


# --- training


@pytest.fixture(scope="module")
def images():
    """24 pictures of noise; those of class 1 are brighter."""
    generator = np.random.default_rng(0)
    targets = np.arange(24) % 2
    tiles = generator.integers(0, 150, (24, 32, 32, 3)) + 100 * targets[:, None, None, None]
    return TileSource(tiles.astype(np.uint8)), targets


def settings(**overrides):
    rates = {"learning_rate": 0.01, "rate_decay": 1, "weight_decay": 0.01}  # large enough to show in any float32
    return ladder_config("phantom", {"batch_size": 8, **rates, **overrides})


def train(model, images, stage, epochs=1, validation=None, **overrides):
    source, targets = images
    return train_stage(
        model,
        Batches(source, targets, 8, (0, 1), "cpu"),
        Batches(source, targets if validation is None else validation, 8, None, "cpu"),
        stage,
        epochs,
        settings(**overrides),
    )


def tensors(model):
    """Copies of all weights and BatchNorm statistics, by group and name."""
    names = {id(m): name for name, m in model.named_modules()}
    return {
        (group, f"{names[id(module)]}.{name}"): tensor.clone()
        for group, modules in module_groups(model)
        for module in modules
        for name, tensor in module.state_dict().items()
    }


@pytest.mark.parametrize("stage", UNFROZEN)
def test_a_stage_changes_every_weight_of_what_it_unfreezes_and_none_below(make_model, images, stage):
    model = make_model(positions=("layer", "block", "transition"))
    before = tensors(model)
    train(model, images, stage)
    after = tensors(model)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert len(before) == len(model.state_dict())
    assert changed == {key for key in before if key[0] in UNFROZEN[stage]}
    assert any(name.endswith("running_var") for _, name in before)


def test_a_gate_rate_of_zero_leaves_the_gates_as_they_start(make_model, images):
    before, model = (tensors(make_model(gate="standard")) for _ in range(2)), make_model(gate="standard")
    before = next(before)
    train(model, images, "all", epochs=2, gate_rate=0)
    after = tensors(model)
    still = {name for (_, name), value in before.items() if torch.equal(value, after[_, name])}
    gates = {name for _, name in before if ".se." in name}
    assert still == gates and len(gates) == 28


def test_gates_learn_at_their_own_rate(make_model, images, monkeypatch):
    seen = []

    class Spy(training.FrozenPrefix):
        def after_step(self):
            seen.append([group["lr"] for group in self.learn.opt.hypers])

    monkeypatch.setattr(training, "FrozenPrefix", Spy)
    train(make_model(positions=("block",)), images, "all", rate_decay=0.5, gate_rate=8)
    stem, *blocks, head = seen[1]
    assert stem == pytest.approx(head * 0.5**5)
    assert blocks[1::2] == pytest.approx([8 * head] * 4)
    assert blocks[::2] == pytest.approx([head * 0.5**power for power in (4, 3, 2, 1)])


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_an_optimiser_takes_the_step_that_torch_takes(make_model, images, optimiser, monkeypatch):
    """One step of the head alone, without decay: torch's Adam and SGD from the same gradient."""
    model, gradients, rates = make_model(), [], []

    class Spy(training.FrozenPrefix):
        def before_step(self):
            gradients.append(self.learn.model.model.classifier.bias.grad.clone())

        def after_step(self):
            rates.append(self.learn.opt.hypers[-1])

    monkeypatch.setattr(training, "FrozenPrefix", Spy)
    bias = model.classifier.bias.detach().clone()
    source, targets = images
    batches = [Batches(source, targets, 24, seed, "cpu") for seed in ((0,), None)]
    train_stage(model, *batches, "head", 1, settings(optimiser=optimiser, weight_decay=0))
    weight = torch.nn.Parameter(bias)
    weight.grad = gradients[0]
    rate = rates[0]["lr"]
    torch_optimiser = {
        "adam": lambda: torch.optim.Adam([weight], lr=rate, eps=1e-5),
        "sgd": lambda: torch.optim.SGD([weight], lr=rate, momentum=rates[0]["mom"]),
    }[optimiser]()
    torch_optimiser.step()
    np.testing.assert_allclose(model.classifier.bias.detach(), weight.detach(), rtol=1e-4)


def test_the_losses_of_images_are_those_of_the_history(make_model, images):
    source, targets = images
    parts = [Batches(source, targets, 10, (0, 1), "cpu"), Batches(source, targets, 10, None, "cpu")]
    model = make_model()
    rows = train_stage(model, *parts, "block4", 3, settings(record_losses=True))
    for batches, part in zip(parts, ("train", "validation"), strict=True):
        losses = np.array(batches.losses)
        assert losses.shape == (3, 24)
        assert np.nanmean(losses, axis=1) == pytest.approx([row[f"{part}_log_loss"] for row in rows], rel=1e-5)
    assert np.isnan(parts[0].losses).sum(axis=1).tolist() == [4, 4, 4]  # two batches of ten
    logits = predict_logits(model, source, 8)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), reduction="none")
    np.testing.assert_allclose(parts[1].losses[-1], expected, rtol=1e-4, atol=1e-6)


def test_the_views_drawn_are_those_that_training_sees():
    batches = Batches(Echo(11, 4), np.zeros(11), 3, (7,), "cpu")
    seen = {(row, view) for _ in range(5) for row, view, _ in drawn(batches)}
    drawn_views = batches.views_drawn(5)
    assert {(row, view) for row, view in np.argwhere(drawn_views).tolist()} == seen
    assert drawn_views.shape == (11, 4)


def test_a_later_stage_may_freeze_again(make_model, images):
    model = make_model()
    train(model, images, "block3")
    before = tensors(model)
    train(model, images, "head")
    after = tensors(model)
    assert {group for group, name in before if not torch.equal(before[group, name], after[group, name])} == {"head"}


def test_the_frozen_prefix_gets_no_gradient(make_model, images, monkeypatch):
    seen = []

    class Spy(training.FrozenPrefix):
        def after_backward(self):
            groups = module_groups(self.learn.model.model)
            gradients = {group: [p.grad for m in modules for p in m.parameters()] for group, modules in groups}
            seen.append({group: all(g is not None and g.any() for g in found) for group, found in gradients.items()})
            assert not any(g is not None for group in GROUPS[:4] for g in gradients[group])

    monkeypatch.setattr(training, "FrozenPrefix", Spy)
    train(make_model(), images, "block4", epochs=2)
    assert len(seen) == 6
    for group in GROUPS:
        assert seen[-1][group] == (group in UNFROZEN["block4"])


def test_each_group_trains_at_its_own_rate(make_model, images, monkeypatch):
    seen = []

    class Spy(training.FrozenPrefix):
        def after_step(self):
            seen.append([(group["lr"], group["wd"]) for group in self.learn.opt.hypers])

    monkeypatch.setattr(training, "FrozenPrefix", Spy)
    plain = make_model(positions=())
    train(plain, images, "block3", epochs=2, learning_rate=0.01, rate_decay=0.5, weight_decay=0.125)
    assert len(seen) == 2 * 3
    for step in seen:
        rates = [rate for rate, _ in step]
        assert [low / high for low, high in pairwise(rates)] == pytest.approx([0.5] * 5)
        assert {decay for _, decay in step} == {0.125}
    heads = [step[-1][0] for step in seen]
    assert 0.005 < max(heads) <= 0.01  # one cycle: up to the peak and down again
    assert heads[0] < max(heads) > heads[-1]


def test_history_holds_what_scikit_learn_finds(make_model, images):
    source, targets = images
    model = make_model()
    rows = train(model, images, "block4", epochs=2)
    assert len(rows) == 2
    assert list(rows[0]) == [
        "train_loss", "train_accuracy", "train_log_loss", "train_auroc",
        "validation_loss", "validation_accuracy", "validation_log_loss", "validation_auroc",
    ]  # fmt: skip
    assert not model.training
    logits = torch.from_numpy(predict_logits(model, source, 5))
    probability = logits.double().softmax(dim=1).numpy()
    last = rows[-1]
    assert last["validation_log_loss"] == pytest.approx(log_loss(targets, probability), abs=1e-5)
    assert last["validation_accuracy"] == pytest.approx((probability.argmax(1) == targets).mean())
    assert last["validation_auroc"] == pytest.approx(roc_auc_score(targets, probability[:, 1]))


def test_three_classes_have_no_auroc(make_model, images):
    source, _ = images
    rows = train(make_model(num_classes=3), (source, np.arange(24) % 3), "head")
    assert "validation_auroc" not in rows[0]
    assert np.isfinite(list(rows[0].values())).all()


def test_training_learns_and_repeats(make_model, images):
    first, second = (train(make_model(), images, "all", epochs=15) for _ in range(2))
    assert first == second
    assert first[-1]["validation_log_loss"] < first[0]["validation_log_loss"]
    assert first[-1]["validation_accuracy"] == 1


def test_class_weights_change_the_loss_not_the_log_loss(make_model, images):
    source, _ = images
    rare = np.array([0] * 20 + [1] * 4)
    weighted = train(make_model(), (source, rare), "head", learning_rate=1e-9)[0]
    plain = train(make_model(), (source, rare), "head", learning_rate=1e-9, class_weights=False)[0]
    assert weighted["validation_log_loss"] == pytest.approx(plain["validation_log_loss"], abs=1e-4)
    assert plain["validation_loss"] == pytest.approx(plain["validation_log_loss"], abs=1e-5)
    assert weighted["validation_loss"] != pytest.approx(weighted["validation_log_loss"], abs=1e-3)


def test_early_stopping_stops_and_restores_the_best_epoch(make_model, images, capsys):
    source, targets = images
    model = make_model()
    wrong = 1 - targets  # what is learnt makes validation worse
    rows = train(model, images, "all", epochs=12, validation=wrong, patience=2, class_weights=False)
    losses = [row["validation_log_loss"] for row in rows]
    assert len(rows) == int(np.argmin(losses)) + 1 + 2 < 12
    logits = predict_logits(model, source, 8)
    restored = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(wrong)).item()
    assert restored == pytest.approx(min(losses), abs=1e-5)
    assert restored < losses[-1] - 1e-3
    assert capsys.readouterr().out == ""  # nothing litters a chapter


def test_mixup_lowers_what_can_be_learnt_of_single_images(make_model, images):
    plain, mixed = (train(make_model(), images, "all", epochs=10, mixup=alpha) for alpha in (0, 1.0))
    assert mixed == train(make_model(), images, "all", epochs=10, mixup=1.0)
    assert mixed[-1]["train_log_loss"] > plain[-1]["train_log_loss"]
    assert mixed[-1]["validation_accuracy"] == 1  # what it learnt still holds for images as they are


def test_averaged_weights_are_the_moving_average_of_those_trained(make_model, images, monkeypatch):
    """Worked out by hand from the weights after every step."""
    seen = []

    class Spy(training.FrozenPrefix):
        def after_step(self):
            seen.append(self.learn.model.model.classifier.weight.detach().clone())

    monkeypatch.setattr(training, "FrozenPrefix", Spy)
    model = make_model()
    train(model, images, "head", epochs=2, average_weights=0.9)
    expected = seen[0]  # the first step's weights start it
    for weight in seen[1:]:
        expected = 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(model.classifier.weight, expected)
    assert not torch.equal(model.classifier.weight, seen[-1])


@pytest.mark.parametrize("extra", [{"mixup": 0.5}, {"average_weights": 0.9}], ids=lambda extra: next(iter(extra)))
def test_a_stage_that_was_broken_off_goes_on_as_if_it_had_not_been(make_model, images, extra):
    source, targets = images
    kept = []

    def run(model, **more):
        batches = Batches(source, targets, 8, (0, 1), "cpu")
        upright = Batches(source, targets, 8, None, "cpu")
        return train_stage(model, batches, upright, "head", 3, settings(**extra), **more)

    whole = make_model()
    rows = run(whole, keep=lambda state: kept.append(copy.deepcopy((state, whole.state_dict()))))
    state, weights = kept[0]
    later = make_model()
    later.load_state_dict(weights)
    assert run(later, resumed=state) == rows
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, later.state_dict()[name]), name


def test_predictions_can_be_the_mean_over_views(make_model, images):
    source, _ = images
    model = make_model().eval()
    views = [model(source.batch(np.arange(24), np.full(24, view))).detach() for view in range(source.views)]
    np.testing.assert_allclose(
        predict_logits(model, source, 8, views=source.views), torch.stack(views).mean(0), atol=1e-5
    )
    np.testing.assert_allclose(predict_logits(model, source, 8), views[0], atol=1e-5)


def test_predictions_do_not_depend_on_the_batch_size(make_model, images):
    source, _ = images
    model = make_model().train()
    logits, features = predict_logits(model, source, 7), pooled_features(model, source, 24)
    assert not model.training
    assert (logits.shape, features.shape) == ((24, 2), (24, model.classifier.in_features))
    weight, bias = (p.detach().numpy() for p in model.classifier.parameters())
    np.testing.assert_allclose(features @ weight.T + bias, logits, atol=1e-5)


def test_a_device_that_is_not_there_is_refused_in_one_line():
    check_device("cpu")
    absent = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(HistotransferError, match=f"^device: {absent} cannot be used here .*; use cpu$"):
        check_device(absent)
