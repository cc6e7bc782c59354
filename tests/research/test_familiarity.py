from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histotransfer.evaluation.familiarity import Familiarity
from histotransfer.records import read_json
from research import familiarity
from research.familiarity import ALLOWED, ESTIMATORS, HELD_OUT, choose, features_of, judge

RECORD = Path(__file__).parents[2] / "results" / "familiarity"
CHOSEN = read_json(RECORD / "record.json")["chosen"]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_finds_what_lies_elsewhere(name):
    draw = np.random.default_rng(0)
    basis = draw.normal(size=(5, 40))
    known, new = (draw.normal(size=(300, 5)) @ basis + 0.1 * draw.normal(size=(300, 40)) for _ in range(2))
    distance = ESTIMATORS[name](known)
    threshold = np.quantile(distance(new), 0.95)
    assert (distance(new + 5) > threshold).mean() > 0.95
    assert (distance(draw.normal(size=(50, 40)) * 3) > threshold).mean() > 0.95


def test_the_package_measures_the_distance_that_was_chosen():
    draw = np.random.default_rng(0)
    known, new = (draw.normal(size=(count, 40)) * np.arange(1, 41) for count in (300, 50))
    expected = ESTIMATORS[CHOSEN["estimator"]](known)(new)
    assert np.log(Familiarity.fit(known).distances(new)) == pytest.approx(expected, abs=1e-3)


def test_what_the_classifier_sees_finds_less():
    """As the docstring of `evaluation.familiarity` says."""
    candidates = pd.read_csv(RECORD / "candidates.csv").set_index("features")
    chosen = candidates.loc[candidates["chosen"], "rarest find"].item()
    assert candidates.loc["classifier", "rarest find"].max() < chosen - 0.4


def test_a_fold_is_judged_by_the_thresholds_of_the_others():
    own = np.linspace(0, 1, 101)
    folds = [{HELD_OUT: own, "lung": own + 2}, {HELD_OUT: own, "lung": own + 2}, {HELD_OUT: own + 1, "lung": own}]
    found = judge(folds)
    assert found["worst fold"] == 1  # the third lies beyond whatever the first two say
    assert found["false alarms"] == pytest.approx(1 / 3, abs=0.01)
    assert found["lung"] == pytest.approx(found["rarest find"])
    assert 2 / 3 <= found["lung"] < 0.75


def test_the_rule_takes_the_best_find_among_those_that_keep_their_promise():
    candidates = pd.DataFrame(
        [
            {"false alarms": ALLOWED + 0.01, "rarest find": 1.0, "worst fold": 0.1, "numbers": 1},
            {"false alarms": 0.05, "rarest find": 0.9, "worst fold": 0.2, "numbers": 1},
            {"false alarms": 0.05, "rarest find": 0.895, "worst fold": 0.1, "numbers": 9},
            {"false alarms": 0.05, "rarest find": 0.895, "worst fold": 0.1, "numbers": 2},
            {"false alarms": 0.01, "rarest find": 0.5, "worst fold": 0.0, "numbers": 1},
        ]
    )
    assert choose(candidates) == 3
    with pytest.raises(ValueError, match="no candidate"):
        choose(candidates[:1])


def test_features_are_those_that_predict_computes(make_model):
    """Those that were chosen are what `WithFeatures` gives after its logits."""
    import torch

    from histotransfer.models.se_densenet import WithFeatures
    from histotransfer.tiles import network_input

    model = make_model().eval()
    tiles = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), dtype=np.uint8)
    found = features_of(model, tiles)
    x = torch.from_numpy(network_input(tiles, np.zeros(40, dtype=int)))
    with torch.inference_mode():
        whole, pooled = WithFeatures(model)(x).numpy(), model.pooled(x).numpy()
    np.testing.assert_allclose(found[CHOSEN["features"]], whole[:, 2:], atol=1e-5)
    np.testing.assert_allclose(found["classifier"], pooled, atol=1e-5)
    assert found["transitions and spread"].shape[1] == 2 * found["transitions"].shape[1]


@pytest.mark.slow
def test_the_choice_is_recorded_without_reading_the_external_set(small_network, phantom_root, tmp_path, monkeypatch):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'experiment = "primary"\nanswers = []\nprofile = "phantom"\nfolds = [0, 1, 2, 3, 4]\nseeds = [0]\nminutes = 1\n'
        '[settings]\nsize = 48\nsource = "none"\nnormaliser = "none"\nbreakhis_schedule = "head:1"\nbatch_size = 8\n'
        "[arms.plain]\n"
    )
    monkeypatch.setattr(familiarity, "COUNT", 8)
    monkeypatch.setattr(familiarity, "ALLOWED", 1)
    familiarity.main(phantom_root, tmp_path / "out", plan)
    table = pd.read_csv(tmp_path / "out" / "candidates.csv")
    assert table["chosen"].sum() == 1 and len(table) == 6 * len(ESTIMATORS)
    assert table["noise"].max() > 0.9
    record = read_json(tmp_path / "out" / "record.json")
    assert table[table["chosen"]].iloc[0][["features", "estimator"]].to_dict() == record["chosen"]
