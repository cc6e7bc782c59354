"""Situations that people report of such programs, on small inputs beside the real images: each gives what its README
expects. The folders are not part of the project; each kind has tests of its own elsewhere."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from histotransfer import cli
from histotransfer.datasets import own
from histotransfer.deploy.notes import UNLIKE
from histotransfer.deploy.predict import SHIPPED, Prediction, Predictor, Trouble, find_pictures
from histotransfer.errors import HistotransferError
from histotransfer.folders import said
from histotransfer.models.weights import load_model, save_model

pytestmark = pytest.mark.slow
QUICK = ("folds=3", "size=32", "weights=random", "breakhis_schedule=head:1", "threads=1")


@pytest.fixture(scope="module")
def field(data_root):
    folder = data_root.parent / "field"
    if not folder.is_dir():
        pytest.skip("no folder field beside the real images")
    return folder


@pytest.fixture(scope="module")
def predicted(field):
    """Predict a folder: file name to label and probability or to the line that refuses it; and what was passed over."""
    predictor = Predictor(SHIPPED)

    def predict(folder):
        passed_over = []
        results = predictor.predict(find_pictures([str(field / folder)], passed_over))
        return {Path(result.file).name: result for result in results}, said(passed_over)

    return predict


def refused(results, words):
    return {name for name, result in results.items() if isinstance(result, Trouble) and words in result.message}


def test_01_a_turned_picture_is_its_upright_twin(predicted):
    results, _ = predicted("01-exif-orientation")
    for turned, upright in (
        ("ytma23_022103_benign3_ccd_ex6.jpg", "ytma23_022103_benign3_ccd_up.jpg"),
        ("SOB_B_TA-14-16184-40-015_exif6.jpg", "SOB_B_TA-14-16184-40-015_upright.jpg"),
    ):
        assert results[turned].label == results[upright].label
        assert results[turned].probabilities == pytest.approx(results[upright].probabilities, abs=0.02)


def test_02_pages_are_counted(predicted):
    results, _ = predicted("02-multipage-tiff")
    assert refused(results, "holds 3 pages") == {"three_fields.tif"}
    assert refused(results, "holds 2 pages") == {"label_first.tif"}
    assert {name for name, result in results.items() if isinstance(result, Prediction)} == {"page1.tif", "page2.tif"}


def test_04_grey_is_grey_in_every_container(predicted):
    results, _ = predicted("04-grey-stored-as-rgb")
    assert refused(results, "a colour picture is needed") == set(results) - {"colour.png"}
    assert isinstance(results["colour.png"], Prediction)


def test_05_parts_of_a_split_are_no_classes(field):
    pattern = r"(benign|malignant)/(?P<patient>[^/]+)/.+\.png"
    with pytest.raises(HistotransferError, match="labels test, train: parts of a split, not classes"):
        own.load(field / "05-train-test-folders" / "data", pattern)


def test_06_every_file_is_predicted_or_said(predicted):
    results, passed_over = predicted("06-skipped-in-folder/fields")
    assert set("abcdefgi") == {name[0] for name, result in results.items() if isinstance(result, Prediction)}
    assert passed_over == ["passed over: .bak (1), .svs (1)"]


def test_08_endings_in_capitals_count(field, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["histotransfer", "data", "summary", str(field / "08-uppercase-png-breakhis")])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out.split("\nall ")[1].split()[3] == "18"


@pytest.mark.parametrize(
    ("table", "trouble"),
    [
        ("09-patient-spelling/patient_float.csv", "patient: '1410926' and '1410926.0'.* differ in spelling only"),
        ("09-patient-spelling/patient_zero.csv", "patient: '01410926' and '1410926'.* differ in spelling only"),
        ("09-patient-spelling/patient_nan_partly.csv", "row 2, column patient: 'nan' is no name"),
        ("10-label-spelling/label_case.csv", "label: 'Benign' and 'benign'.* differ in spelling only"),
        ("10-label-spelling/label_01_float.csv", "label: '0' and '0.0'.* differ in spelling only"),
        (
            "19-copy-under-other-label/copy_other_label.csv",
            r"copy\.png: the same picture as .*b00\.png under another label",
        ),
        (
            "19-copy-under-other-label/copy_other_patient.csv",
            r"copy\.png: the same picture as .*b00\.png under another patient",
        ),
    ],
)
def test_what_would_mix_patients_or_classes_is_refused(field, table, trouble):
    with pytest.raises(HistotransferError, match=trouble) as error:
        own.load(field / table)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "table",
    [
        "10-label-spelling/label_nbsp.csv",
        "18-csv-dialects/backslash.csv",
        "18-csv-dialects/extra_col.csv",
        "18-csv-dialects/head_case.csv",
        "18-csv-dialects/mag_40x.csv",
        "18-csv-dialects/semicolon.csv",
        "18-csv-dialects/utf16.csv",
    ],
)
def test_what_leaves_no_doubt_is_read(field, table):
    read = own.load(field / table)
    assert sorted(set(read["label"])) == ["benign", "malignant"]
    assert (len(read), read["patient"].nunique()) == (36, 12)
    assert set(read["magnification"]) == {40 if "40x" in table else 0}


def test_09_one_patient_in_two_normal_forms_is_one(field, tmp_path, monkeypatch):
    monkeypatch.delenv("CI", raising=False)  # which refuses random weights
    arguments = ["ladder", "--profile", "lite", "--own", field / "09-patient-spelling/patient_unicode.csv"]
    settings = [word for setting in QUICK for word in ("--set", setting)]
    command = [sys.executable, "-m", "histotransfer.cli", *map(str, arguments), "--out", str(tmp_path), *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\nall ")[1].split()[:3] == ["36", "12", "12"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_11_weights_that_are_no_numbers_are_refused(field, tmp_path, capsys, monkeypatch, form):
    model, description = load_model(SHIPPED)
    save_model(model, tmp_path / "model.safetensors", description)
    make = field / "11-nan-weights" / "make.py"
    monkeypatch.setattr(
        sys, "argv", [str(make), str(tmp_path / "model.safetensors"), str(tmp_path / "nan.safetensors")]
    )
    runpy.run_path(str(make))
    picture, weights = field / "11-nan-weights" / "pen.png", tmp_path / "nan.safetensors"
    command = ["histotransfer", "predict", str(picture), "--weights", str(weights), "--format", form]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert "nan.safetensors: 1 tensors hold NaN or infinity" in err


def test_14_pictures_without_tissue_are_noted(predicted):
    results, _ = predicted("14-no-tissue")
    expected = {
        "black.png": "pen ink",
        "noise.png": "pen ink",
        "pen.png": "pen ink",
        "strip_2000x17.png": "unusual size (2000x17 pixels)",
        "white.png": "too little tissue",
    }
    assert {name: result.note for name, result in results.items()} == {
        name: f"{note}; {UNLIKE}" for name, note in expected.items()
    }


def test_15_what_the_normaliser_leaves_is_noted(field, write_model):
    predictor = Predictor(write_model(normaliser="macenko"))
    results = list(predictor.predict(find_pictures([str(field / "15-normaliser-fallback-silent" / "*.png")])))
    assert {Path(result.file).stem: result.note for result in results if isinstance(result, Prediction)} == {
        "pen": "pen ink; colours not normalised (pen ink)",
        "white": "too little tissue; colours not normalised (too little tissue)",
    }
    assert refused({Path(result.file).name: result for result in results}, "grey picture") == {"grey_as_rgb.png"}
