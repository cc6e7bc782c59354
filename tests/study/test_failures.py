import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histotransfer.evaluation import failures as detectors
from histotransfer.study.failures import (
    COMPARED,
    DESIGN_ALARMS,
    GRIDS,
    THRESHOLDS,
    Effort,
    counts,
    design,
    fields,
    provoked_findings,
    provoked_runs,
    run_failures,
    synthetic_findings,
)

TINY = Effort(cases=10, seeds=2, show_seeds=1, many=24, some=16, few=8, held_out=16, epochs=3, show_epochs=3, size=48)


def test_the_design_takes_the_smallest_threshold_with_few_false_alarms():
    sweep = design(30)
    assert {name: tuple(own["threshold"]) for name, own in sweep.groupby("signature")} == GRIDS
    for _, own in sweep.groupby("signature"):
        allowed = own[own["false alarms"] <= DESIGN_ALARMS]
        assert own.loc[own["chosen"], "threshold"].tolist() == [allowed["threshold"].min()]
        assert (own["hits"].diff().dropna() <= 0).all() and (own["false alarms"].diff().dropna() <= 0).all()


@pytest.mark.parametrize("family", ["exponential", "power"])
def test_detectors_tell_synthetic_histories_apart(family):
    rates = synthetic_findings(family, 60).groupby(["signature", "truth"])["found"].mean().unstack()
    assert (rates[True] > 0.8).all() and (rates[False] < 0.15).all()


def test_counts_have_wilsons_intervals():
    findings = pd.DataFrame(
        {
            "signature": "overfitting",
            "histories": "made",
            "truth": [True] * 10 + [False] * 4,
            "found": [True] * 9 + [False] * 5,
        }
    )
    hits, alarms = counts(findings).itertuples(index=False)
    z, n, p = 1.959964, 10, 0.9
    middle, reach = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    assert (hits.n, hits.found, hits.rate) == (10, 9, 0.9)
    assert (hits.low, hits.high) == pytest.approx(((middle - reach) / scale, (middle + reach) / scale))
    assert (alarms.n, alarms.found, alarms.low) == (4, 0, 0)


def test_every_field_is_of_another_patient():
    tiles, classes = fields(60, 32, seed=5)
    assert tiles.shape == (60, 32, 32, 3) and classes.mean() == 0.5
    assert len({tile.tobytes() for tile in tiles}) == 60
    assert not {tile.tobytes() for tile in fields(60, 32, seed=6)[0]} & {tile.tobytes() for tile in tiles}


def test_every_arm_of_a_seed_is_judged():
    histories = provoked_runs(0, TINY)
    assert histories.groupby(["arm", "seed"]).size().groupby("arm").first().to_dict() == {
        "few images": 6, "some images": 3, "many images": 3, "many images, again": 3,
        "right labels": 3, "right labels, again": 3, "shuffled labels": 3,
    }  # fmt: skip
    findings = provoked_findings(histories)
    assert len(findings) == 2 * len(COMPARED) - 1  # one arm has no provoked truth
    provoked = findings[findings["histories"] == "phantom, as provoked"]
    assert set(provoked.groupby("signature")["truth"].sum()) == {1}


@pytest.mark.slow
def test_the_record_is_whole_and_the_same_again(tmp_path):
    one, other = (run_failures(tmp_path / name, effort=TINY, report=str) for name in "ab")
    names = {"record.json", "design.csv", "counts.csv", "findings.csv", "histories.csv"}
    assert {path.name for path in one.iterdir()} == names | {"provenance.json"}
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
    assert {"DenseNet-121, scratch", "DenseNet-121, ImageNet"} <= set(pd.read_csv(one / "histories.csv")["arm"])


def test_the_committed_record_is_of_todays_detectors():
    record = json.loads(Path("results/failures/record.json").read_text())
    assert record["thresholds"] == {name: getattr(detectors, THRESHOLDS[name].upper()) for name in THRESHOLDS}
    histories = pd.read_csv("results/failures/histories.csv")
    kept = pd.read_csv("results/failures/findings.csv")
    again = provoked_findings(histories[~histories["arm"].str.startswith("DenseNet")])
    assert again["found"].tolist() == kept["found"].tolist() and again["truth"].tolist() == kept["truth"].tolist()
    phantom = pd.read_csv("results/failures/counts.csv").query("histories.str.startswith('phantom')")
    pd.testing.assert_frame_equal(counts(again), phantom.reset_index(drop=True), rtol=1e-5)
