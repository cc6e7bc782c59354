import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histotransfer.evaluation import failures as detectors
from histotransfer.experiments import failures
from histotransfer.experiments.failures import (
    COMPARED,
    THRESHOLDS,
    counts,
    provoked_findings,
    synthetic_findings,
)
from histotransfer.experiments.provoked import Effort, fields, provoked_runs
from histotransfer.report.failures import convergence_of_starts, counted, overfitting_by_dataset, signatures_by_arm

TINY = Effort(cases=10, seeds=2, show_seeds=1, many=24, some=16, few=8, held_out=16, epochs=3, show_epochs=3, size=48)


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


def test_counts_are_read_in_the_order_of_the_signatures():
    rows = [("slow convergence", "b", True, 4, 1), ("overfitting", "b", False, 3, 0), ("overfitting", "a", True, 2, 2)]
    table = pd.DataFrame(rows, columns=["signature", "histories", "truth", "n", "found"]).assign(low=0.1, high=0.9)
    shown = counted(table.assign(rate=table["found"] / table["n"]))
    assert shown.index.tolist() == [("overfitting", "b"), ("overfitting", "a"), ("slow convergence", "b")]
    assert shown["hits"].tolist() == ["–", "2 of 2: 1.00 [0.10,\xa00.90]", "1 of 4: 0.25 [0.10,\xa00.90]"]
    assert shown["false alarms"].tolist() == ["0 of 3: 0.00 [0.10,\xa00.90]", "–", "–"]


def test_overfitting_is_said_of_each_data_set():
    rising = pd.DataFrame({"train_log_loss": 0.3, "validation_log_loss": [0.5, 0.5, 0.5, 0.9, 0.9, 0.9]})
    history = pd.concat([rising.iloc[:3].assign(dataset="lc25000"), rising.assign(dataset="breakhis")])
    table = overfitting_by_dataset({"own": history})
    assert table.loc[("own", "breakhis")].tolist() == [True, pytest.approx(0.4), 3]
    assert not table.loc[("own", "lc25000"), "found"] and pd.isna(table.loc[("own", "lc25000"), "epoch"])


def test_signatures_are_counted_by_arm_beside_the_control():
    def history(*losses):
        return pd.DataFrame({"dataset": "breakhis", "train_log_loss": 0.1, "validation_log_loss": losses})

    slow, fast = history(*np.linspace(1, 0.2, 9)), history(1, *[0.2] * 8)
    rising, harmed = history(1, *[0.2] * 4, *[0.9] * 4), history(*np.linspace(1, 0.6, 9))
    table = signatures_by_arm({"scratch": [slow, slow], "transfer": [fast, rising], "bad": [harmed, harmed]}, "scratch")
    assert table["runs"].tolist() == [2, 2, 2]
    assert table["overfitting"].tolist() == [0, 1, 0]
    assert table["negative transfer"].tolist() == [0, 1, 2]
    assert table["slow convergence"].tolist() == [0, 2, 0]
    with pytest.raises(ValueError, match="longer"):
        signatures_by_arm({"scratch": [slow, slow], "transfer": [fast]}, "scratch")


def test_convergence_of_starts_marks_what_was_not_reached():
    runs = {"scratch": (np.linspace(1, 0.4, 10), np.ones(10)), "ImageNet": (np.full(10, 0.3), np.full(10, 0.3))}
    histories = pd.concat(
        pd.DataFrame(
            {"dataset": "phantom", "validation_log_loss": losses, "arm": f"DenseNet-121, {start}", "seed": seed}
        )
        for start, arm in runs.items()
        for seed, losses in enumerate(arm)
    )
    table = convergence_of_starts(histories)
    # Means of the first run fall from 0.933 by 0.067 an epoch to 0.467; the median of 0.583 and 1 is the level.
    assert set(table["level"]) == {0.792} and set(table["horizon"]) == {10}
    assert table["epochs"].tolist() == ["6, 10+", "3, 3"]
    assert table["mean"].tolist() == [8, 3]


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
    one, other = (failures.run(tmp_path / name, effort=TINY, report=str) for name in "ab")
    names = {"record.json", "counts.csv", "findings.csv", "histories.csv"}
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
