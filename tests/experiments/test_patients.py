import json

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from histotransfer.datasets import breakhis
from histotransfer.experiments import patients
from histotransfer.experiments.patients import per_patient


def test_each_patient_has_its_counts_and_colours(phantom_root):
    table = breakhis.load(phantom_root)
    patients = per_patient(table)
    assert patients["images"].sum() == len(table) and len(patients) == 24
    assert (patients[["40x", "100x", "200x", "400x"]].sum(axis=1) == patients["images"]).all()
    group = table["group"].iloc[0]
    own = [np.asarray(Image.open(path)) for path in table.loc[table["group"] == group, "path"]]
    lab = np.array([cv2.cvtColor(np.float32(i) / 255, cv2.COLOR_RGB2LAB).mean(axis=(0, 1)) for i in own])
    np.testing.assert_allclose(patients.loc[group, ["L", "a", "b"]].astype(float), lab.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(patients.loc[group, ["L_sd", "a_sd", "b_sd"]].astype(float), lab.std(axis=0), atol=0.15)


def test_the_record_is_the_same_wherever_the_data_lie(phantom_root, tmp_path):
    a, b = (patients.run(phantom_root, tmp_path / name) for name in "ab")
    assert (a / "patients.csv").read_bytes() == (b / "patients.csv").read_bytes()
    record = json.loads((a / "record.json").read_text())
    assert record["data"]["patients"] == len(pd.read_csv(a / "patients.csv")) == 24
    assert str(phantom_root) not in (a / "record.json").read_text()


def test_the_committed_record_is_of_the_real_subset(data_root, tmp_path):
    made = patients.run(data_root, tmp_path / "real")
    committed = pd.read_csv("results/data/patients.csv")
    pd.testing.assert_frame_equal(pd.read_csv(made / "patients.csv"), committed, rtol=1e-4)
    assert committed["images"].sum() == 1361
    assert committed.groupby("label")["patient"].size().to_dict() == {"benign": 14, "malignant": 40}
