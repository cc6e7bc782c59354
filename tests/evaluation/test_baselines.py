import tomllib
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from histotransfer.evaluation.baselines import PROBE_C, frozen_probe, majority_logits, probe_logits


@pytest.fixture(scope="module")
def patients():
    """60 patients of 4 images: 10 features, the first of which tells the class."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4)
    labels = (groups % 3 == 0).astype(int)
    features = generator.normal(size=(240, 10)) * 50 + 1000
    features[:, 0] += 200 * labels
    return features, labels, groups


def test_majority_always_says_the_most_frequent_class():
    labels = np.array([1, 1, 0, 1, 2])
    logits = majority_logits(labels, 7)
    assert logits.shape == (7, 3)
    assert set(logits.argmax(axis=1)) == {1}
    np.testing.assert_allclose(np.exp(logits[0]), [1 / 5, 3 / 5, 1 / 5])


def test_majority_ranks_nothing():
    assert roc_auc_score([0, 1, 1, 0], majority_logits(np.array([0, 1, 1]), 4)[:, 1]) == 0.5


def test_probe_recovers_a_class_that_a_line_separates(patients):
    features, labels, groups = patients
    train = groups < 40
    probe = frozen_probe(features[train], labels[train])
    logits = probe_logits(probe, features[~train])
    assert logits.shape == (80, 2)
    assert (logits.argmax(axis=1) == labels[~train]).mean() > 0.9
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probability, probe.predict_proba(features[~train]), atol=1e-12)


def test_probe_finds_nothing_in_noise(patients):
    features, labels, groups = patients
    train = groups < 40
    noise = features[:, 1:]
    probe = frozen_probe(noise[train], labels[train])
    assert 0.3 < roc_auc_score(labels[~train], probe_logits(probe, noise[~train])[:, 1]) < 0.7


def test_the_probes_c_is_that_of_the_rule(patients):
    claims = tomllib.loads((Path(__file__).parents[2] / "study" / "claims.toml").read_text())
    assert f"C = {PROBE_C:.0e}".replace("e-0", "e-") in claims["comparisons"]["bar"]
    assert frozen_probe(*patients[:2])["logisticregression"].C == PROBE_C


def test_probe_is_standardised_on_the_training_part(patients):
    features, labels, groups = patients
    train = groups < 40
    scaler = frozen_probe(features[train], labels[train])["standardscaler"]
    np.testing.assert_allclose(scaler.mean_, features[train].mean(axis=0))
