import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.failures import (
    DELAY,
    HARM,
    RISE,
    convergence,
    convergence_level,
    curve,
    epochs_to,
    negative_transfer,
    overfitting,
    slow_convergence,
)
from histotransfer.records import read_run


def history(validation, train=None, dataset="breakhis"):
    """A history on one data set; training falls steadily unless it is given."""
    train = np.linspace(0.7, 0.1, len(validation)) if train is None else train
    return pd.DataFrame({"dataset": dataset, "train_log_loss": train, "validation_log_loss": validation}).astype(
        {"train_log_loss": float, "validation_log_loss": float}
    )


losses = st.lists(st.floats(0.01, 3), min_size=3, max_size=30)


@given(losses)
def test_a_curve_is_the_rolling_mean_of_three_epochs(values):
    expected = pd.Series(values).rolling(3).mean().dropna()
    found = curve(history(values))
    np.testing.assert_allclose(found, expected)
    assert list(found.index) == [i + 1 for i in expected.index]


def test_only_the_last_data_set_counts():
    both = pd.concat([history([9.0] * 5, dataset="lc25000"), history([0.5, 0.4, 0.3])], ignore_index=True)
    assert curve(both).to_dict() == {3: pytest.approx(0.4)}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (history([0.5, 0.4]), "2 epochs on the last data set; at least 3"),
        (history([]), "0 epochs"),
        (history([0.5, np.nan, 0.4]), "not finite in epoch 2"),
        (history([0.5, 0.4, 0.3]).drop(columns="dataset"), "no column dataset"),
    ],
)
def test_a_history_that_cannot_be_judged_is_refused(broken, message):
    with pytest.raises(HistotransferError, match=message):
        overfitting(broken)


def test_overfitting_is_a_rise_at_the_end_and_says_where_to_have_stopped():
    found = overfitting(history([0.7, 0.5, 0.4, 0.3, 0.4, 0.5, 0.6]))
    # Means of three: 0.533, 0.4, 0.367, 0.4, 0.5: lowest at epoch 5, 0.133 below the last.
    assert (found.found, found.epoch) == (True, 5)
    assert found.amount == pytest.approx(0.5 - 1.1 / 3)
    assert not overfitting(history([0.7, 0.5, 0.4, 0.3, 0.4, 0.5, 0.6]), rise=0.2).found


def test_a_rise_that_is_over_at_the_end_is_none():
    assert not overfitting(history([0.7, 0.5, 0.4, 1.5, 1.5, 1.5, 0.4, 0.4, 0.4])).found


def test_a_run_whose_training_goes_astray_too_does_not_overfit():
    validation = [0.7, 0.5, 0.4, 0.4, 0.9, 0.9, 0.9]
    assert overfitting(history(validation)).found
    assert not overfitting(history(validation, train=validation)).found


@given(losses, st.floats(0.1, 5))
def test_overfitting_does_not_depend_on_the_level(values, shift):
    one, other = overfitting(history(values)), overfitting(history(np.array(values) + shift))
    assert one.amount == pytest.approx(other.amount, abs=1e-9)


@given(losses)
def test_a_validation_loss_that_only_falls_is_never_overfitting(values):
    assert not overfitting(history(sorted(values, reverse=True))).found


def test_negative_transfer_must_last_until_the_end():
    control = history([0.7, 0.6, 0.5, 0.4, 0.4, 0.4, 0.4])
    worse = history([0.7, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7])
    late = history([0.9, 0.9, 0.9, 0.9, 0.4, 0.4, 0.4])
    found = negative_transfer(worse, control)
    # Means differ by 0.067, 0.167, 0.267, 0.3, 0.3 from epoch 3 on: above 0.05 from the first.
    assert (found.found, found.epoch) == (True, 3)
    assert found.amount == pytest.approx(0.8 / 3)
    assert not negative_transfer(late, control).found
    assert negative_transfer(worse, control, harm=0.1).epoch == 4


@given(losses.filter(lambda values: len(values) > 5))
def test_two_arms_cannot_harm_each_other(values):
    one, other = history(values), history(values[::-1])
    assert not (negative_transfer(one, other).found and negative_transfer(other, one).found)
    assert not negative_transfer(one, one).found


def test_arms_of_different_budgets_are_refused():
    with pytest.raises(HistotransferError, match="one budget"):
        negative_transfer(history([0.5] * 5), history([0.5] * 6))


def test_epochs_to_a_level_and_censoring():
    run = history([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])  # means 0.8, 0.7, 0.6, 0.5 at epochs 3 to 6
    assert epochs_to(run, 0.65) == (5, True)
    assert epochs_to(run, 0.4) == (6, False)


def test_slow_convergence_compares_epochs_and_bounds_them_from_below():
    fast, slow = history([0.5] * 3 + [0.4] * 9), history(np.linspace(1.2, 0.45, 12))
    found = slow_convergence(slow, fast, level=0.55)
    assert found.found and found.amount == pytest.approx(12 / 3) and found.epoch == 12
    never = slow_convergence(slow, fast, level=0.5)
    assert never.found and never.amount == pytest.approx(12 / 3)
    assert not slow_convergence(fast, slow, level=0.55).found
    assert not slow_convergence(slow, slow, level=0.1).found


def test_a_level_lies_between_the_first_mean_and_the_lowest():
    runs = [history([1.0] * 3 + [low] * 3 + [2.0] * 3) for low in (0.2, 0.4, 0.9)]
    assert convergence_level(runs, share=0.5) == pytest.approx(0.7)
    assert convergence_level(runs, share=1) == pytest.approx(0.4)


def test_the_restricted_mean_cuts_off_at_the_horizon():
    runs = [history([0.4] * 8), history([0.9] * 6 + [0.4] * 6), history([0.9] * 8)]
    table = convergence(runs, level=0.5, horizon=8)
    assert table["epochs"].tolist() == [3, 8, 8]
    assert table["passed"].tolist() == [True, False, False]
    with pytest.raises(HistotransferError, match="fewer than the horizon of 9"):
        convergence(runs, level=0.5, horizon=9)


def test_the_real_run_of_the_spine_overfits_and_its_source_task_does_not():
    run = read_run("results/spine/ladder").history
    assert overfitting(run).found
    assert not overfitting(run[run["dataset"] == "lc25000"]).found


def test_thresholds_are_the_ones_that_the_design_chose():
    design = pd.read_csv("results/detectors/design.csv")
    chosen = design[design["chosen"]].set_index("signature")["threshold"].to_dict()
    assert chosen == {"overfitting": RISE, "negative transfer": HARM, "slow convergence": DELAY}
