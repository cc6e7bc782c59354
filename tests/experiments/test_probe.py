import numpy as np
import pytest

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis
from histotransfer.experiments.probe import Probed, out_of_fold

CONFIG = ladder_config("phantom", {"size": 32, "folds": 3, "normaliser": "none"})


@pytest.fixture
def patients(make_table):
    """24 patients with four images; features know the patient perfectly and the class not at all."""
    images = [(f"p{i // 4}", ("benign", "malignant")[i // 4 % 2]) for i in range(96)]
    features = np.repeat(np.random.default_rng(0).normal(size=(24, 30)), 4, axis=0)
    return make_table(images), features


def predictions(table, features, units):
    images = table["path"].str.rsplit("/").str[-1]
    return out_of_fold(Probed("made", table, breakhis.LABELS, features, ()), images, units, CONFIG)


def test_memory_for_patients_is_worth_everything_by_image_and_nothing_by_patient(patients):
    table, features = patients
    by_patient, audit = predictions(table, features, table["group"])
    by_image, leaking = predictions(table, features, table["path"])

    def accuracy(frame):
        return ((frame["logit_malignant"] > frame["logit_benign"]) == (frame["truth"] == "malignant")).mean()

    assert accuracy(by_image) > 0.8
    assert accuracy(by_patient) < 0.75
    assert all(fold["groups"] == 0 for fold in audit.values())
    assert all(fold["groups"] > 0.8 * fold["of"] for fold in leaking.values())


def test_each_image_is_predicted_once_in_the_order_of_the_table(patients):
    table, features = patients
    frame, *_ = predictions(table, features, table["group"])
    assert frame["image"].tolist() == [f"{i:04d}.png" for i in range(96)]
    assert np.isfinite(frame[["logit_benign", "logit_malignant"]]).all(axis=None)
    assert frame.groupby("group")["fold"].nunique().max() == 1


def test_features_of_a_fold_are_made_from_its_training_images_alone(patients):
    table, features = patients
    masks = []

    def made(train):
        masks.append(train)
        return features

    frame, *_ = predictions(table, made, table["group"])
    assert len(masks) == 3
    for fold, train in enumerate(masks):
        assert ((frame["fold"] == fold) == ~train).all()
    assert frame.equals(predictions(table, features, table["group"])[0])
