import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, binomtest, norm, t

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.clusters import draw_counts, scored
from histotransfer.evaluation.intervals import (
    all_metrics,
    differences,
    effective,
    intervals,
    jackknife,
    leave_one_out,
    limits,
    mean_intervals,
    smallest_distance,
)

BOUNDED = ["accuracy", "balanced_accuracy", "auroc", "average_precision", "sensitivity", "specificity", "f1", "brier"]


def shifted(predictions, by):
    """Another arm: every logit of malignant moved."""
    return predictions.assign(logit_malignant=predictions["logit_malignant"] + by)


def independent(predictions):
    """As if every image were a patient of its own."""
    return predictions.assign(group=predictions["image"], patient=predictions["image"])


def test_point_values_are_the_metrics(make_predictions):
    predictions = make_predictions()
    found = intervals(predictions)
    assert found["value"].to_dict() == all_metrics(predictions)
    assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()


def test_the_jackknife_error_of_a_mean_is_the_textbooks():
    """Equal clusters of one class: s / sqrt(n), with n - 1 degrees of freedom."""
    values = np.array([0.2, 0.5, 0.9, 0.4, 0.7])
    left = np.array([np.delete(values, i).mean() for i in range(5)])
    error, freedom = jackknife(left, np.full(5, 1 / 5), np.zeros(5))
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(5))
    assert freedom == pytest.approx(4)


def test_the_jackknife_of_two_classes_is_welchs():
    a, b = np.array([1.0, 2, 4, 7]), np.array([3.0, 3.5, 9])
    left = np.array([np.delete(a, i).mean() - b.mean() for i in range(4)])
    left = np.append(left, [a.mean() - np.delete(b, i).mean() for i in range(3)])
    error, freedom = jackknife(left, np.r_[np.full(4, 1 / 4), np.full(3, 1 / 3)], np.repeat([0, 1], [4, 3]))
    va, vb = a.var(ddof=1) / 4, b.var(ddof=1) / 3
    assert error == pytest.approx(np.sqrt(va + vb))
    assert freedom == pytest.approx((va + vb) ** 2 / (va**2 / 3 + vb**2 / 2))


def test_unequal_patients_are_effectively_fewer():
    assert effective(np.full(7, 3.0)) == pytest.approx(7)
    assert effective(np.array([1.0, 0, 0])) == 1
    assert effective(np.array([3.0, 1])) == pytest.approx(16 / 10)
    left = np.array([0.1, 0.2, 0.4])
    assert jackknife(left, np.array([0.98, 0.01, 0.01]), np.zeros(3))[1] == 1  # never less


def test_limits_of_independent_images_are_clopper_and_pearsons():
    """With the variance p (1 - p) / n of n independent images and many degrees of freedom."""
    n, hits = 80, 60
    low, high = limits("accuracy", hits / n, np.sqrt(0.75 * 0.25 / n), np.inf, patients=5)
    expected = binomtest(hits, n).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_limits_by_hand():
    """Korn and Graubard: 0.8 with standard error 0.05 is that of 64 images; 9 degrees of freedom make them fewer."""
    trials = 64 * (norm.ppf(0.975) / t.ppf(0.975, 9)) ** 2
    hits, misses = 0.8 * trials, 0.2 * trials
    expected = beta.ppf(0.025, hits, misses + 1), beta.ppf(0.975, hits + 1, misses)
    assert limits("auroc", 0.8, 0.05, 9, patients=5) == pytest.approx(expected)
    assert limits("matthews_correlation", 0.6, 0.1, 9, patients=5) == pytest.approx(2 * np.array(expected) - 1)
    reach = np.exp(t.ppf(0.975, 9) * 0.05 / 0.8)
    assert limits("log_loss", 0.8, 0.05, 9, patients=5) == pytest.approx((0.8 / reach, 0.8 * reach))


def test_where_all_patients_are_all_right_or_all_wrong_they_are_the_trials(make_predictions):
    predictions = make_predictions(patients=9, images=4)  # 5 benign, 4 malignant
    right = predictions.assign(logit_malignant=np.where(predictions["truth"] == "malignant", 3.0, -3.0), logit_benign=0)
    best, worst = intervals(right), intervals(right.assign(logit_malignant=-right["logit_malignant"]))
    for metric in ("accuracy", "auroc", "sensitivity", "recognition_rate", "patient_accuracy"):
        low, high = binomtest(4, 4).proportion_ci(method="exact")
        assert best.loc[metric].tolist() == pytest.approx([1, low, high])
        assert worst.loc[metric].tolist() == pytest.approx([0, 1 - high, 1 - low])
    assert best.loc["matthews_correlation"].tolist() == pytest.approx([1, 2 * low - 1, 1])
    assert worst.loc["matthews_correlation", "low"] == -1


def test_a_constant_prediction_has_values_but_no_interval_where_no_patient_differs(make_predictions):
    found = intervals(make_predictions().assign(logit_benign=0.0, logit_malignant=0.0))
    assert found.loc["auroc", "value"] == found.loc["balanced_accuracy", "value"] == 0.5
    assert found.loc[["auroc", "balanced_accuracy", "log_loss"], ["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(("only", "own"), [("malignant", "specificity"), ("benign", "sensitivity")])
def test_a_metric_that_is_not_defined_has_no_interval(make_predictions, only, own):
    predictions = make_predictions()
    predictions = predictions[predictions["truth"] == only]
    for found in (intervals(predictions), differences([(predictions, shifted(predictions, 1))], draws=50)):
        undefined = set(found.index[found["value"].isna()])
        assert undefined >= {"auroc", "average_precision", "balanced_accuracy", "patient_auroc", own}
        assert found.loc[list(undefined)].isna().all(axis=None)
        assert found.loc[["accuracy", "log_loss", "brier"]].notna().all(axis=None)


def test_one_patient_of_a_class_shows_no_spread(make_predictions):
    predictions = make_predictions()
    alone = predictions[(predictions["truth"] == "malignant") | (predictions["group"] == "14-0")]
    for found in (intervals(alone), differences([(alone, shifted(alone, 1))], draws=50)):
        assert found["value"].notna().all()
        assert found[["low", "high"]].isna().all(axis=None)


def test_a_metric_that_hangs_on_one_patient_has_no_interval(make_predictions):
    """At 40x one patient is all the benign there are: without them AUROC there, and so its mean, is not defined."""
    predictions = make_predictions(patients=10, magnifications=(40, 100))
    lost = (predictions["magnification"] == 40) & (predictions["truth"] == "benign")
    hanging = predictions[~lost | (predictions["group"] == "14-0")].reset_index(drop=True)
    arms = hanging, shifted(hanging, 1)
    found = [intervals(hanging, "magnification"), differences([arms], "magnification", draws=200)]
    for table in found:
        assert np.isfinite(table.loc["auroc", "value"])
        assert table.loc[["auroc", "specificity"], ["low", "high"]].isna().all(axis=None)
        assert table.loc["sensitivity", ["low", "high"]].notna().all()
    certain = hanging.assign(logit_malignant=np.where(hanging["truth"] == "malignant", 9.0, -9.0))
    assert intervals(certain, "magnification").loc["auroc"].isna().tolist() == [False, True, True]


def test_too_many_redraws_without_a_value_give_no_interval(make_predictions):
    """Two patients of ten are all the benign at 40x: no one is needed alone, but one redraw in nine has neither."""
    predictions = make_predictions(patients=20, magnifications=(40, 100))
    lost = (predictions["magnification"] == 40) & (predictions["truth"] == "benign")
    few = predictions["group"].isin(predictions.loc[lost, "group"].unique()[:2])
    hanging = predictions[~lost | few].reset_index(drop=True)
    found = differences([(hanging, shifted(hanging, 1))], "magnification", draws=400)
    assert found.loc["specificity", ["low", "high"]].isna().all()
    assert found.loc["sensitivity", ["low", "high"]].notna().all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(make_predictions, bad):
    predictions = make_predictions()
    broken = predictions.assign(logit_benign=bad)
    with pytest.raises(HistotransferError, match="not finite"):
        intervals(broken)
    with pytest.raises(HistotransferError, match="not finite"):
        differences([(predictions, broken)])


def test_no_image_is_an_error(make_predictions):
    nothing = make_predictions().query("magnification == 200")
    with pytest.raises(HistotransferError, match="no images"):
        intervals(nothing)
    with pytest.raises(HistotransferError, match="no images"):
        differences([(nothing, nothing)])


def test_more_images_of_the_same_patients_do_not_narrow_an_interval(make_predictions):
    once = make_predictions(patients=20)
    often = pd.concat([once.assign(image=f"{i}-" + once["image"]) for i in range(10)], ignore_index=True)
    a, b, c = (intervals(table) for table in (once, often, independent(often)))
    pd.testing.assert_frame_equal(a, b, atol=1e-9)
    for metric in ("accuracy", "auroc", "log_loss"):
        assert (c["high"] - c["low"])[metric] < 0.6 * (a["high"] - a["low"])[metric]


def test_intervals_do_not_depend_on_row_order_or_names(make_predictions):
    predictions = make_predictions()
    turned = predictions.sample(frac=1, random_state=1)
    renamed = turned.assign(image="x" + turned["image"], group="y" + turned["group"], patient="z" + turned["patient"])
    pd.testing.assert_frame_equal(intervals(predictions), intervals(renamed))


def test_more_confidence_is_wider(make_predictions):
    predictions = make_predictions()
    wide, narrow = (intervals(predictions, level=level) for level in (0.95, 0.5))
    assert (wide["low"] < narrow["low"]).all() and (narrow["high"] < wide["high"]).all()


def test_the_mean_over_magnifications_knows_that_they_share_patients(make_predictions):
    """Three magnifications that are copies: their mean has the interval of one; were they of others, a narrower one."""
    single = make_predictions(patients=16, magnifications=(40,))
    same = [single.assign(magnification=m, image=f"{m}-" + single["image"]) for m in (40, 100, 200)]
    found, expected = intervals(pd.concat(same), "magnification"), intervals(single)
    pd.testing.assert_frame_equal(found.loc[BOUNDED], expected.loc[BOUNDED])
    others = [table.assign(group=f"{i} " + table["group"]) for i, table in enumerate(same)]
    apart = intervals(pd.concat(others), "magnification")
    assert ((apart["high"] - apart["low"]) < 0.75 * (found["high"] - found["low"]))[["accuracy", "auroc"]].all()


def test_more_than_two_classes_have_fewer_metrics(make_predictions):
    table = make_predictions()
    table["truth"] = np.where(table["group"].isin(["14-1", "14-2", "14-3"]), "lung_scc", table["truth"])
    names = {"benign": "lung_n", "malignant": "lung_aca"}
    table = table.replace({"truth": names}).rename(
        columns={f"logit_{old}": f"logit_{new}" for old, new in names.items()}
    )
    found = intervals(table.assign(logit_lung_scc=0.0))
    assert list(found.index) == ["accuracy", "balanced_accuracy", "log_loss", "recognition_rate", "patient_accuracy"]
    assert found.notna().all(axis=None)


def test_a_difference_is_paired(make_predictions):
    """Two arms that differ little have a narrow interval, however wide those of the arms are."""
    ours = make_predictions(patients=30)
    theirs = shifted(ours, -0.4)
    found = differences([(ours, theirs)], draws=2000)
    expected = intervals(ours)["value"] - intervals(theirs)["value"]
    pd.testing.assert_series_equal(found["value"], expected, check_names=False)
    own = intervals(ours)
    assert (found["high"] - found["low"])["accuracy"] < 0.6 * (own["high"] - own["low"])["accuracy"]
    known = found.drop(["auroc", "average_precision", "patient_auroc"])  # a shift of all logits leaves their order
    assert (known["low"] <= known["high"]).all() and found.drop(known.index)["low"].isna().all()


def test_swapping_the_arms_negates_the_difference(make_predictions):
    ours = make_predictions(patients=10)
    theirs = make_predictions(patients=10).assign(logit_malignant=make_predictions(10, seed=5)["logit_malignant"])
    there, back = (differences([pair], draws=400) for pair in ((ours, theirs), (theirs, ours)))
    pd.testing.assert_series_equal(there["value"], -back["value"])
    pd.testing.assert_series_equal(there["low"], -back["high"], check_names=False)
    pd.testing.assert_series_equal(there["smallest"], back["smallest"])


def test_rows_of_the_arms_may_stand_in_any_order(make_predictions):
    ours = make_predictions()
    theirs = shifted(ours, 0.5)
    turned = theirs.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(differences([(ours, theirs)], draws=100), differences([(ours, turned)], draws=100))


def test_the_same_table_twice_differs_by_0_without_an_interval(make_predictions):
    found = differences([(make_predictions(), make_predictions())], draws=100)
    assert (found["value"] == 0).all()
    assert found[["low", "high", "smallest"]].isna().all(axis=None)


def test_several_pairs_are_averaged_patient_by_patient(make_predictions):
    ours = make_predictions(patients=14)
    first, second = (ours, shifted(ours, -0.7)), (shifted(ours, 0.2), shifted(ours, 0.9))
    found, parts = differences([first, second], draws=300), [differences([p], draws=300) for p in (first, second)]
    pd.testing.assert_series_equal(found["value"], (parts[0]["value"] + parts[1]["value"]) / 2)
    pd.testing.assert_frame_equal(differences([first, first], draws=300), parts[0])


def test_a_difference_is_the_middle_of_the_paired_redraws(make_predictions):
    """With the ends moved out to where t with the jackknife's degrees of freedom has them."""
    ours = make_predictions(patients=16)
    theirs = shifted(ours, 0.8)
    arms = [scored(table) for table in (ours, theirs)]
    counts = draw_counts(arms[0].classes, 1000, seed=4)
    drawn = np.subtract(*(arm.values(counts)["brier"] for arm in arms))
    left = np.subtract(*(arm.values(leave_one_out(arm.classes))["brier"] for arm in arms))
    freedom = jackknife(left, arms[0].shares("brier"), arms[0].classes)[1]
    ends = norm.cdf(np.array([-1, 1]) * t.ppf(0.975, freedom) * np.sqrt(1 + 1 / freedom))
    assert 0.001 < ends[0] < 0.025
    found = differences([(ours, theirs)], draws=1000, seed=4).loc["brier"]
    assert found[["low", "high"]].tolist() == pytest.approx(np.quantile(drawn, ends).tolist())
    reach = t.ppf(0.975, freedom) + t.ppf(0.8, freedom)
    assert found["smallest"] == pytest.approx(reach * drawn.std() * np.sqrt(1 + 1 / freedom))


def test_of_some_metrics_differences_are_what_they_are_of_all(make_predictions):
    arms = [(make_predictions(), shifted(make_predictions(), 1))]
    found = differences(arms, draws=200, metrics=["log_loss", "auroc"])
    pd.testing.assert_frame_equal(found, differences(arms, draws=200).loc[["log_loss", "auroc"]])


def test_differences_follow_from_the_seed(make_predictions):
    ours = make_predictions()
    pair = [(ours, shifted(ours, 0.5))]
    assert differences(pair, draws=200, seed=1).equals(differences(pair, draws=200, seed=1))
    assert not differences(pair, draws=200, seed=1).equals(differences(pair, draws=200, seed=2))


@pytest.mark.slow
def test_intervals_cover_the_truth_and_power_is_what_it_says():
    """Patients with a random effect of their own: true accuracy and AUROC in closed form; 2 x 60 patients of 4."""
    generator = np.random.default_rng(0)
    patients, per_patient, between = 60, 4, 0.7
    spread = np.sqrt(between**2 + 1)
    sign = np.repeat([-1, 1], patients * per_patient)
    names = np.repeat(np.arange(2 * patients), per_patient).astype(str)
    shifts = (0.8, 0.55)
    truth = [
        {"accuracy": norm.cdf(shift / spread), "auroc": norm.cdf(2 * shift / (np.sqrt(2) * spread))} for shift in shifts
    ]
    gaps = {metric: truth[0][metric] - truth[1][metric] for metric in truth[0]}
    hits, held, shown = dict.fromkeys(gaps, 0), dict.fromkeys(gaps, 0), dict.fromkeys(gaps, 0)
    promised = {metric: [] for metric in gaps}
    for _ in range(200):
        arms = []
        for shift in shifts:
            effect = np.repeat(generator.normal(0, between, 2 * patients), per_patient)
            score = shift * sign + effect + generator.normal(size=len(sign))
            arms.append(
                pd.DataFrame(
                    {
                        "image": np.arange(len(sign)).astype(str), "patient": names, "group": names,
                        "magnification": 40, "truth": np.where(sign > 0, "malignant", "benign"),
                        "logit_benign": 0.0, "logit_malignant": score,
                    }
                )
            )  # fmt: skip
        one, two = intervals(arms[0]), differences([arms], draws=400)
        for metric, gap in gaps.items():
            hits[metric] += one.loc[metric, "low"] <= truth[0][metric] <= one.loc[metric, "high"]
            held[metric] += two.loc[metric, "low"] <= gap <= two.loc[metric, "high"]
            shown[metric] += two.loc[metric, "low"] > 0
            promised[metric].append(two.loc[metric, "smallest"])
    assert all(0.9 <= count / 200 <= 0.99 for count in (*hits.values(), *held.values())), (hits, held)
    for metric, gap in gaps.items():
        error = np.mean(promised[metric]) / (norm.ppf(0.975) + norm.ppf(0.8))
        assert shown[metric] / 200 == pytest.approx(norm.cdf(gap / error - norm.ppf(0.975)), abs=0.08)


def test_the_smallest_distance_is_that_of_a_mean(make_predictions):
    """Patients with one image each: accuracy is a mean of independent hits, its standard error is known."""
    table = make_predictions(patients=40, images=1, seed=1)
    hits = (table["logit_malignant"] > table["logit_benign"]) == (table["truth"] == "malignant")
    by_class = [own.to_numpy(float) for _, own in hits.groupby(table["truth"])]
    error = np.sqrt(sum(own.var(ddof=1) * len(own) for own in by_class)) / len(hits)
    found = smallest_distance(table, "accuracy")
    assert found == pytest.approx((t.ppf(0.975, 38) + t.ppf(0.8, 38)) * error, rel=0.05)
    assert np.isnan(smallest_distance(make_predictions(patients=2, images=4), "accuracy"))


def test_one_network_on_average_is_the_mean_of_single_metrics(make_predictions):
    """Three models of the same images; leaving a patient out of all three by hand gives the same jackknife."""
    tables = [make_predictions(seed=3)]
    for seed in (1, 2):
        noise = np.random.default_rng(seed).normal(size=len(tables[0]))
        tables.append(tables[0].assign(logit_malignant=tables[0]["logit_malignant"] + noise))
    found = mean_intervals(tables, wanted=["accuracy", "auroc"])
    single = [intervals(table) for table in tables]
    for metric in ("accuracy", "auroc"):
        assert found.loc[metric, "value"] == pytest.approx(np.mean([own.loc[metric, "value"] for own in single]))

    def mean_without(group):
        kept = [table[table["group"] != group].reset_index(drop=True) for table in tables]
        return np.mean([all_metrics(own, wanted=["accuracy"])["accuracy"] for own in kept])

    first = tables[0].drop_duplicates("group")
    left = np.array([mean_without(group) for group in first["group"]])
    classes = first["truth"].to_numpy()
    variance = sum((np.sum(classes == c) - 1) * left[classes == c].var() for c in np.unique(classes))
    shares = np.full(len(left), 1 / np.sum(classes == classes[0]))
    assert jackknife(left, shares, classes)[0] == pytest.approx(np.sqrt(variance))
    error, freedom = jackknife(left, shares, classes)
    low, high = limits("accuracy", found.loc["accuracy", "value"], error, freedom, 6)
    assert found.loc["accuracy", ["low", "high"]].tolist() == pytest.approx([low, high], abs=1e-6)


def test_the_same_network_thrice_is_that_network(make_predictions):
    table = make_predictions(seed=5)
    pd.testing.assert_frame_equal(mean_intervals([table] * 3), intervals(table), rtol=1e-9)
