from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import recall_score, roc_auc_score

from histotransfer.evaluation.metrics import class_names, probabilities
from histotransfer.records import Run
from histotransfer.report.subtypes import FEWEST, as_two_classes, one_against_rest, subtype_table

NAMES = ("adenosis", "fibroadenoma", "lobular_carcinoma")


@pytest.fixture
def predictions():
    """Three subtypes of eight, six and four patients, five images each at every magnification."""
    generator, rows = np.random.default_rng(0), []
    for subtype, patients in zip(NAMES, (8, 6, 4), strict=True):
        for patient in range(patients):
            for i in range(20):
                logits = generator.normal(size=3) + 1.5 * (np.array(NAMES) == subtype)
                row = {
                    "image": f"{subtype}-{patient}-{i}",
                    "patient": f"{subtype}{patient}",
                    "group": f"{subtype}{patient}",
                }
                row |= {
                    "magnification": (40, 100, 200, 400)[i % 4],
                    "subtype": subtype,
                    "truth": subtype,
                    "part": "test",
                }
                rows.append(row | {f"logit_{name}": logit for name, logit in zip(NAMES, logits, strict=True)})
    return pd.DataFrame(rows)


def test_one_against_the_rest_keeps_the_probability(predictions):
    table = one_against_rest(predictions, "fibroadenoma")
    whole = softmax(predictions[[f"logit_{name}" for name in NAMES]].to_numpy(), axis=1)
    np.testing.assert_allclose(probabilities(table)[:, 1], whole[:, 1])
    assert set(table["truth"]) == {"rest", "fibroadenoma"}
    assert ((table["truth"] == "fibroadenoma") == (predictions["truth"] == "fibroadenoma")).all()


def test_values_are_scikit_learns_and_few_patients_are_not_judged(predictions):
    table = subtype_table(predictions)
    assert table.index.tolist() == list(NAMES)
    assert table["patients"].tolist() == [8, 6, 4] and FEWEST == 5
    assert table["images"].tolist() == [120, 90, 60]  # 400x is left out
    assert table.loc["lobular_carcinoma", ["auroc", "auroc_low", "recall", "recall_high"]].isna().all()
    columns = [f"logit_{name}" for name in NAMES]
    for at, name in enumerate(NAMES[:2]):
        aurocs, recalls = [], []
        for _, own in predictions.query("magnification < 400").groupby("magnification"):
            truth, chances = own["truth"] == name, softmax(own[columns].to_numpy(), axis=1)
            aurocs.append(roc_auc_score(truth, chances[:, at]))
            guess = np.array(NAMES)[chances.argmax(axis=1)]
            recalls.append(recall_score(own["truth"], guess, labels=[name], average="macro"))
        assert table.loc[name, "auroc"] == pytest.approx(np.mean(aurocs))
        assert table.loc[name, "recall"] == pytest.approx(np.mean(recalls))
        for metric in ("auroc", "recall"):
            assert table.loc[name, f"{metric}_low"] < table.loc[name, metric] < table.loc[name, f"{metric}_high"]


def test_two_classes_have_the_sums_of_their_subtypes(predictions):
    run = Run(Path("run"), {}, pd.DataFrame(), predictions, {})
    two = as_two_classes(run).predictions
    whole = softmax(predictions[[f"logit_{name}" for name in NAMES]].to_numpy(), axis=1)
    assert class_names(two) == ["benign", "malignant"]
    np.testing.assert_allclose(probabilities(two)[:, 0], whole[:, 0] + whole[:, 1])
    assert ((two["truth"] == "malignant") == (predictions["truth"] == "lobular_carcinoma")).all()
