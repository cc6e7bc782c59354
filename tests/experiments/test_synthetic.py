import numpy as np
import pandas as pd
import pytest

from histotransfer.evaluation.failures import curve
from histotransfer.experiments.synthetic import (
    AUTOCORRELATION,
    EPOCHS,
    SIGNATURES,
    CurveShape,
    draw_case,
    draw_shape,
    simulate,
)

FAMILIES = ("exponential", "power")


def shape(family, noise=0.0, epochs=30):
    return CurveShape(family, epochs, start=0.7, floor=0.1, gap=0.1, scale=2.0, noise=noise, unfreezings=())


@pytest.mark.parametrize("family", FAMILIES)
def test_without_noise_a_run_is_its_formula(family):
    t = np.arange(30)
    left = np.exp(-t / 2) if family == "exponential" else (1 + t / 2) ** -1.5
    plain, slow = (simulate(shape(family), np.random.default_rng(0), slower=slower) for slower in (1, 3))
    np.testing.assert_allclose(plain["train_log_loss"], 0.1 + 0.6 * left)
    np.testing.assert_allclose(plain["validation_log_loss"], 0.2 + 0.5 * left)
    reached = [int((run["validation_log_loss"] < 0.3).idxmax()) for run in (plain, slow)]
    assert reached[1] == pytest.approx(3 * reached[0], abs=3)
    risen, harmed = (
        simulate(shape(family), np.random.default_rng(0), **what)["validation_log_loss"]
        for what in ({"rise": 0.5}, {"harm": 0.3})
    )
    assert risen.iloc[-1] - plain["validation_log_loss"].iloc[-1] == pytest.approx(0.5)
    assert risen.iloc[0] == plain["validation_log_loss"].iloc[0]
    np.testing.assert_allclose(harmed - plain["validation_log_loss"], 0.3 * (1 - left))


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_has_its_size_and_autocorrelation(family):
    long = shape(family, noise=0.05, epochs=20_000)
    noise = simulate(long, np.random.default_rng(0))["validation_log_loss"].iloc[5000:]
    assert noise.std() == pytest.approx(0.05, rel=0.15)
    assert noise.autocorr() == pytest.approx(AUTOCORRELATION, abs=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_keep_to_their_ranges(family):
    tasks = [draw_shape(np.random.default_rng(seed), family) for seed in range(200)]
    low, high = EPOCHS[family]
    assert min(own.epochs for own in tasks) == pytest.approx(low, abs=2)
    assert max(own.epochs for own in tasks) == pytest.approx(high, abs=2)
    assert all(own.start > own.floor + own.gap for own in tasks)
    assert all(epoch < own.epochs for own in tasks for epoch, _ in own.unfreezings)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_cases_follow_from_their_seed_and_carry_their_signature(signature):
    one, same, other = (draw_case(signature, True, "exponential", seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(one.run, same.run)
    assert not one.run.equals(other.run)
    cases = [(draw_case(signature, truth, "exponential", seed), truth) for seed in range(60) for truth in (True, False)]
    gaps = {
        truth: np.mean([(curve(case.run) - curve(case.reference)).mean() for case, own in cases if own == truth])
        for truth in (True, False)
    }
    assert gaps[True] > 0.03 and abs(gaps[False]) < 0.01
