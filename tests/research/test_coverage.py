import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from scipy.stats import bootstrap, norm, t

from histotransfer.evaluation.intervals import all_metrics, intervals, limits_of
from histotransfer.files import file_hash
from histotransfer.records import PREDICTIONS, read_run
from histotransfer.report.coverage import EVALUATION, TWO
from research import coverage
from research.coverage import GAPS, INPUTS, measure, run_coverage, truth_of
from research.rivals import BOUNDED, RIVALS, rivals
from research.simulation import (
    SEPARATION,
    NormalArms,
    Redrawn,
    RedrawnArms,
    correlations,
    network_variance,
    separated,
    variance_components,
)

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def table(make_predictions):
    """Patients of unequal numbers of images, at two magnifications."""
    whole = make_predictions(patients=24, images=12)
    return whole[np.arange(len(whole)) % 12 < 3 + whole["group"].str[3:].astype(int) % 9].reset_index(drop=True)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(coverage, "SETS", dict.fromkeys(coverage.SETS, 3) | {coverage.POPULATION: 60})


def generators(count, seed=0):
    return [np.random.default_rng((seed, i)) for i in range(count)]


def test_variance_components_by_hand():
    """Two patients, (1, 3) and (6, 8): mean squares 25 between and 2 within, two images each: (25 - 2) / 2."""
    frame = pd.DataFrame(
        {"group": list("aabb"), "truth": "malignant", "magnification": 40, "logit_benign": 0.0,
         "logit_malignant": [1.0, 3, 6, 8]}
    )  # fmt: skip
    (row,) = variance_components(frame).to_dict("records")
    assert row == pytest.approx(
        {"mean": 4.5, "between": 23 / 2, "within": 2, "intraclass": 11.5 / 13.5, "images": 4, "patients": 2}
    )


def test_made_data_have_the_components_and_correlations_asked_for(make_predictions):
    who = make_predictions(patients=600, images=8, magnifications=(40,))
    asked = variance_components(make_predictions(patients=40, magnifications=(40,))).assign(between=1.5, within=0.7)
    wanted = {"between": 0.6, "within": 0.3}
    (tables,) = NormalArms(who, asked, wanted, gap=0.8).population(generators(3))
    found = variance_components(tables[0])
    np.testing.assert_allclose(found[["mean", "between", "within"]], asked[["mean", "between", "within"]], atol=0.12)
    assert correlations(*tables) == pytest.approx({"between": 0.55, "within": 0.3}, abs=0.06)  # means hold noise too
    closer = variance_components(tables[1])["mean"] - asked["mean"]
    np.testing.assert_allclose(closer, [0.4, -0.4], atol=0.1)  # benign up, malignant down


def test_the_truth_of_made_data_is_the_closed_form(table, few):
    components = variance_components(table)
    truth = truth_of(NormalArms(table, components, {"between": 0.7, "within": 0.5}, gap=1.0))
    for magnification in (40, 100):
        benign, malignant = components.loc[(magnification, "benign")], components.loc[(magnification, "malignant")]
        spread = [np.sqrt(own["between"] + own["within"]) for own in (benign, malignant)]
        rows = table[table["magnification"] == magnification]
        share = (rows["truth"] == "malignant").mean()
        for kind, shift in (("one arm", 0), ("difference", 0.5)):
            means = benign["mean"] + shift, malignant["mean"] - shift
            expected = {
                "auroc": norm.cdf((means[1] - means[0]) / np.hypot(*spread)),
                "sensitivity": norm.cdf(means[1] / spread[1]),
                "specificity": norm.cdf(-means[0] / spread[0]),
            }
            expected["accuracy"] = share * expected["sensitivity"] + (1 - share) * expected["specificity"]
            found = truth["one arm", str(magnification)]
            if kind == "difference":
                other = truth[TWO, str(magnification)]
                found = {metric: found[metric] - other[metric] for metric in expected}
            for metric, value in expected.items():
                assert found[metric] == pytest.approx(value, abs=0.03), (kind, magnification, metric)


def test_networks_of_folds_are_found_and_lower_the_truth(table, few):
    """Shifts between folds are found again from logits; a pooled AUROC of two shifted folds is lower."""
    folds = table.assign(fold=pd.factorize(table["group"])[0] % 4)
    components, correlation = variance_components(table), {"between": 0.7, "within": 0.5}
    alike, apart = (NormalArms(folds, components, correlation, 0.0, networks) for networks in (0.0, 2.0))
    found = np.mean([network_variance(ours) for ours, _ in apart.population(generators(40))])
    assert 0.3 < found < 2 / 3  # of a variance that the shifts are part of; four networks show less than their variance
    ((one, _),) = alike.population(generators(40))
    assert network_variance(one) == pytest.approx(0, abs=0.05)
    assert truth_of(apart)["one arm", "40"]["auroc"] < truth_of(alike)["one arm", "40"]["auroc"] - 0.05


def test_networks_by_hand():
    """Two folds of two patients, one image each: standardised logits -1.1, -0.4 and 0.4, 1.1."""
    frame = pd.DataFrame(
        {"fold": [0, 0, 1, 1], "group": list("abcd"), "truth": "benign", "magnification": 40, "logit_benign": 0.0,
         "logit_malignant": [-3.0, -1.0, 1.0, 3.0]}
    )  # fmt: skip
    assert network_variance(frame) == pytest.approx((16 - 2) / 2 / (20 / 3))  # mean squares, over the whole variance


def test_separated_classes_have_the_auroc_asked_for(table):
    components = separated(variance_components(table))
    for _, own in components.groupby("magnification"):
        gap = own.xs("malignant", level="truth")["mean"].item() - own.xs("benign", level="truth")["mean"].item()
        assert norm.cdf(gap / np.sqrt(own[["between", "within"]].to_numpy().sum())) == pytest.approx(SEPARATION)


def test_a_data_set_has_the_patients_of_the_table(table):
    arms = NormalArms(table, variance_components(table), {"between": 0.7, "within": 0.5}, gap=0.0)
    first, second = arms.sets(generators(2))
    assert list(first) == ["40", "100", "all"]
    assert [len(arm.classes) for arm in first["all"]] == [24, 24]
    (again,) = arms.sets(generators(1))
    ones = np.ones((1, 24))
    assert first["all"][0].values(ones) == again["all"][0].values(ones) != second["all"][0].values(ones)


def test_redrawn_patients_are_what_a_table_of_them_is(table):
    arms = RedrawnArms(table, table.assign(logit_malignant=table["logit_malignant"] * 0.5))
    arm, _ = arms.scopes["all"]
    redrawn = Redrawn(arm, seed=3)
    assert len(set(redrawn.drawn)) < len(redrawn.drawn) == 24
    drawn = pd.concat(
        table[table["group"] == arm.design.groups[at]].assign(group=str(copy), patient=str(copy))
        for copy, at in enumerate(redrawn.drawn)
    )
    values = {metric: value[0] for metric, value in redrawn.values(np.ones((1, 24))).items()}
    assert values == pytest.approx(all_metrics(drawn))
    pd.testing.assert_frame_equal(limits_of(values, redrawn), intervals(drawn))


def test_what_is_true_of_redrawn_data_is_the_table_itself(table, few):
    other = table.assign(logit_malignant=table["logit_malignant"] + np.where(table["group"] < "14-2", 1, -1))
    truth = truth_of(RedrawnArms(table, other))
    assert truth["one arm", "40"] == all_metrics(table[table["magnification"] == 40])
    expected = all_metrics(table)["auroc"] - all_metrics(other)["auroc"]
    assert truth[TWO, "all"]["auroc"] == pytest.approx(expected)


class Fixed:
    """An arm whose jackknife is known: the mean of the values of its clusters."""

    def __init__(self, values, classes):
        self.own, self.classes = np.array(values), np.array(classes)

    def values(self, counts, metrics=None):
        return {"accuracy": counts @ self.own / counts.sum(axis=1)}

    def shares(self, metric):
        return np.full(len(self.own), 1 / len(self.own))


def test_rival_intervals_are_scipys():
    """A mean over patients of one class: SciPy's bootstrap intervals, and the t interval of the textbook."""
    values = np.random.default_rng(0).beta(4, 2, 25)
    found = rivals([Fixed(values, np.zeros(25))], ["accuracy"], seed=0)["accuracy"]
    for method, name in (("percentile", "percentile"), ("basic", "basic"), ("BCa", "BCa")):
        expected = bootstrap([values], np.mean, n_resamples=20_000, method=name, rng=np.random.default_rng(1))
        assert found[method] == pytest.approx(tuple(expected.confidence_interval), abs=0.012), method
    error = values.std(ddof=1) / 5
    assert found["t"] == pytest.approx(t.interval(0.95, 24, values.mean(), error))
    low, high = found["studentised"]
    assert low == pytest.approx(found["t"][0], abs=0.04) and high == pytest.approx(found["t"][1], abs=0.04)
    assert found["expanded percentile"][0] < found["percentile"][0]
    middle = logit(values.mean()), error / (values.mean() * (1 - values.mean()))
    assert logit(found["logit t"]) == pytest.approx(t.interval(0.95, 24, *middle))


def test_rivals_of_a_difference_are_of_the_differences():
    one, other = (np.random.default_rng(seed).beta(4, 2, 20) for seed in (0, 1))
    arms, gap = [Fixed(own, np.zeros(20)) for own in (one, other)], Fixed(one - other, np.zeros(20))
    pair, single = (rivals(of, ["accuracy"], seed=0)["accuracy"] for of in (arms, [gap]))
    assert tuple(pair) == RIVALS and set(single) == {*RIVALS, *BOUNDED}
    for method, limits in pair.items():
        assert limits == pytest.approx(single[method]), method


def test_where_no_patient_differs_no_rival_has_an_interval():
    found = rivals([Fixed(np.full(8, 0.7), np.zeros(8))], ["accuracy"], seed=0)["accuracy"]
    assert set(found) == {*RIVALS, *BOUNDED} and np.isnan(list(found.values())).all()


def test_coverage_counts_intervals_that_hold_the_truth(table, few):
    """The share that holds it, misses below and above add up; an impossible truth is never held."""
    arms = NormalArms(table, variance_components(table), {"between": 0.7, "within": 0.5}, gap=1.0)
    truth = truth_of(arms)
    found = measure(arms.sets(generators(12)), truth, compare=True)
    np.testing.assert_allclose(found[["coverage", "below", "above"]].sum(axis=1), 1)
    of_differences = found["kind"] == TWO
    assert found.loc[of_differences, "shown"].notna().all() and found.loc[~of_differences, "shown"].isna().all()
    assert found[~of_differences & (found["magnification"] == "40")]["method"].nunique() == 8
    auroc = found.query("metric == 'auroc' and magnification == 'all' and kind == 'one arm'").iloc[0]
    held = 0
    for data in arms.sets(generators(12)):
        arm, _ = data["all"]
        own = limits_of({metric: value[0] for metric, value in arm.values(np.ones((1, 24))).items()}, arm).loc["auroc"]
        held += own["low"] <= truth["one arm", "all"]["auroc"] <= own["high"]
    assert auroc["coverage"] == pytest.approx(held / 12)
    never = measure(
        arms.sets(generators(3)), {key: dict.fromkeys(own, 5.0) for key, own in truth.items()}, compare=False
    )
    assert (never["coverage"] == 0).all() and (never["below"] == 1).all()


@pytest.mark.slow
def test_a_record_is_written_and_again_the_same(tmp_path, few, monkeypatch):
    monkeypatch.setitem(coverage.SETS, coverage.POPULATION, 3)
    first, second = (run_coverage(RESULTS, tmp_path / name, report=str) for name in "ab")
    for name in ("coverage.csv", "methods.csv", "power.csv", "record.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    record = json.loads((first / "record.json").read_text())
    assert record["artifacts"]["coverage.csv"] == file_hash(first / "coverage.csv")
    assert set(record["inputs"]) == set(INPUTS)


@pytest.mark.parametrize("command", [["-m", "research.coverage"], ["-m", "histotransfer.cli", "study", "coverage"]])
def test_a_missing_run_is_named_by_the_command_and_by_its_old_name(tmp_path, command):
    arguments = [*command, "--records", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "breakhis-by-patient: not a run's folder" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def measured():
    return pd.read_csv(RESULTS / "coverage/coverage.csv", dtype={"magnification": str})


def test_the_committed_record_is_of_the_committed_runs():
    record = json.loads((RESULTS / "coverage/record.json").read_text())
    for name, digest in record["inputs"].items():
        assert file_hash(RESULTS / name / PREDICTIONS) == digest
    for name, digest in record["artifacts"].items():
        assert file_hash(RESULTS / "coverage" / name) == digest
    assert record["sets"] == coverage.SETS and record["seeds"] == coverage.SEEDS
    ours = read_run(RESULTS / INPUTS[0]).predictions
    found = pd.DataFrame(record["components"]).set_index(["magnification", "truth"])
    pd.testing.assert_frame_equal(found, variance_components(ours), check_like=True)


def test_a_committed_data_set_can_be_made_again(measured):
    """The first data sets of the record, made anew, give intervals as wide as the record says on the whole."""
    runs = [read_run(RESULTS / name).predictions for name in INPUTS]
    arms = NormalArms(runs[0], variance_components(runs[0]), correlations(*runs[2:]), gap=max(GAPS))
    sets = arms.sets(coverage.generators_of(EVALUATION)[:10])
    found = measure(sets, coverage_truth(measured), [TWO], compare=False).set_index(["kind", "magnification", "metric"])
    at = measured[(measured["scenario"] == "estimated") & (measured["gap"] == max(GAPS))]
    for row in at[at["metric"].isin(["auroc", "accuracy"]) & (at["magnification"] != "400")].itertuples():
        found_width = found.loc[(row.kind, row.magnification, row.metric), "width"]
        assert found_width == pytest.approx(row.width, rel=0.4)


def coverage_truth(measured):
    rows = measured[(measured["scenario"] == "estimated") & (measured["gap"] == max(GAPS))]
    return {
        key: dict(zip(own["metric"], own["truth"], strict=True)) for key, own in rows.groupby(["kind", "magnification"])
    }
