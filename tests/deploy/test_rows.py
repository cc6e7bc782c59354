import csv
import io
import json

import numpy as np
import pytest
from scipy.special import logit

from histotransfer.deploy.predict import Prediction
from histotransfer.deploy.rows import RowWriter, of_patient
from histotransfer.models.description import Description

SETS = {"picture": 0.4, "patient": 0.2}
KNOWN = Description(
    architecture={"num_classes": 2},
    classes=["benign", "malignant"],
    size=48,
    profile="lite",
    views={"views": 4, "augmentation": "none"},
    normaliser="none",
    imagenet="random",
    sets=SETS,
)
PICTURES = [
    Prediction('P1/a,"b".png', "malignant", (1 / 3, 2 / 3), "malignant", "pen ink; out of focus"),
    Prediction("P2/ü.png", "malignant", (0.0, 1.0), "malignant", ""),
    Prediction("P1/c.png", "benign", (0.9, 0.1), "benign", "pen ink"),
]


def written(form, patient_of=None, pictures=PICTURES):
    file = io.StringIO(newline="")
    writer = RowWriter(file, form, KNOWN, patient_of)
    assert not any(writer.write(picture) for picture in pictures)
    writer.write_patients()
    return file.getvalue().splitlines()


def test_rows_as_csv():
    header, first, second, _ = written("csv")
    assert header == "file,label,p_benign,p_malignant,set,note,profile"
    assert first == '"P1/a,""b"".png",malignant,0.3333,0.6667,malignant,pen ink; out of focus,lite'
    assert second == "P2/ü.png,malignant,0.0000,1.0000,malignant,,lite"


@pytest.mark.parametrize("patient_of", [None, lambda file: file[:2]])
def test_json_lines_have_the_same_fields(patient_of):
    rows = list(csv.DictReader(written("csv", patient_of)))
    lines = [json.loads(line) for line in written("jsonl", patient_of)]
    assert [list(line) for line in lines] == [list(row) for row in rows]
    for row, line in zip(rows, lines, strict=True):
        numbers = [name for name, value in line.items() if isinstance(value, float | int)]
        assert {name: float(row[name]) for name in numbers} == {name: line[name] for name in numbers}
        assert all(row[name] == (line[name] or "") for name in set(line) - set(numbers))


def test_a_row_for_each_patient_after_all_pictures():
    rows = list(csv.DictReader(written("csv", lambda file: file[:2])))
    assert [row["file"] for row in rows] == [*(picture.file for picture in PICTURES), "P1", "P2"]
    assert [row["patient"] for row in rows] == ["P1", "P2", "P1", "P1", "P2"]
    assert [row["pictures"] for row in rows] == ["", "", "", "2", "1"]
    first = rows[3]
    logs = np.log([PICTURES[0].probabilities, PICTURES[2].probabilities]).mean(axis=0)
    benign = np.exp(logs[0]) / np.exp(logs).sum()
    assert (first["label"], first["p_benign"]) == ("benign", f"{benign:.4f}")
    assert float(first["spread"]) == pytest.approx(np.std(logit([1 / 3, 0.9])), abs=1e-4)
    assert first["set"] == "cannot tell"  # the limits of patients, not those of pictures
    assert first["note"] == "pen ink: 2 of 2; out of focus: 1 of 2"
    assert (rows[4]["set"], rows[4]["note"], rows[4]["spread"]) == ("malignant", "", "0.0")


def test_certain_pictures_have_finite_logits():
    found, spread = of_patient("P", [PICTURES[1], PICTURES[2], Prediction("x", "benign", (1.0, 0.0), "", "")], KNOWN)
    assert np.isfinite(spread) and np.isfinite(found.probabilities).all()


def test_patients_that_differ_in_spelling_only_are_noted():
    names = {picture.file: name for picture, name in zip(PICTURES, ("p1", "P2", "P1"), strict=True)}
    rows = list(csv.DictReader(written("csv", names.__getitem__)))[3:]
    assert {row["file"]: row["note"].split("; ")[-1] for row in rows} == {
        "p1": "differs in spelling only from 'P1'",
        "P2": "",
        "P1": "differs in spelling only from 'p1'",
    }


def test_no_cell_of_a_table_is_a_formula():
    names = ("=1+1.png", "+1.png", "-1.png", "@a.png", "\t=1.png", "a=1.png")
    pictures = [Prediction(name, "benign", (0.5, 0.5), "", "") for name in names]
    rows = list(csv.DictReader(written("csv", lambda file: "=cmd", pictures)))
    assert [row["file"] for row in rows[:6]] == [
        "./=1+1.png", "./+1.png", "./-1.png", "./@a.png", "./\t=1.png", "a=1.png"
    ]  # fmt: skip
    assert {row["patient"] for row in rows} == {"'=cmd"}
    assert json.loads(written("jsonl", None, pictures)[0])["file"] == "=1+1.png"
