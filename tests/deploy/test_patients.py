import csv
import sys

import numpy as np
import pytest
from PIL import Image

from histotransfer import cli
from histotransfer.deploy.patients import patients
from histotransfer.errors import HistotransferError

COLOURS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
BY_FOLDER = r"(?P<patient>[^/]+)/[^/]+$"


@pytest.fixture
def pictures(tmp_path):
    """Five pictures of two patients, in a folder for each, and a CSV file of them."""
    files = [tmp_path / name for name in ("P1/a.png", "P1/b.png", "P2/a.png", "P2/b.png", "P2/c.png")]
    for number, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(COLOURS, number)).save(file)
    table = tmp_path / "pictures.csv"
    rows = "".join(f"{file.relative_to(tmp_path)};case {file.parent.name}\n" for file in files)
    table.write_text(f"Path;Case\n{rows}", encoding="utf-8")
    return files, table


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["histotransfer", "predict", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return stop.value.code, list(csv.DictReader(out.splitlines())), err.splitlines()


def test_by_a_column_and_by_a_pattern(pictures, write_model, monkeypatch, capsys):
    files, table = pictures
    options = "--weights", write_model(), "--by"
    status, rows, _ = run(monkeypatch, capsys, table, *options, "case")
    assert status == 0
    assert [row["file"] for row in rows] == [*map(str, files), "case P1", "case P2"]
    assert [row["pictures"] for row in rows[5:]] == ["2", "3"]
    _, others, _ = run(monkeypatch, capsys, *files, *options, BY_FOLDER)
    for row, other in zip(rows, others, strict=True):
        assert {**row, "file": "", "patient": ""} == {**other, "file": "", "patient": ""}


def test_a_picture_whose_patient_is_not_known_is_refused_alone(pictures, write_model, monkeypatch, capsys):
    files, table = pictures
    status, rows, err = run(monkeypatch, capsys, *files, "--weights", write_model(), "--by", r"(?P<patient>P1)/")
    assert status == 2 and [row["file"] for row in rows] == [*map(str, files[:2]), "P1"]
    assert all("does not name a patient" in line for line in err[:3])
    assert err[3] == "predicted: 2; noted: 2; refused: 3; passed over: 0"
    other = files[0].with_name("other.png")
    other.write_bytes(files[0].read_bytes())
    status, rows, err = run(monkeypatch, capsys, table, other, "--weights", write_model(), "--by", "case")
    assert status == 2 and len(rows) == 7 and "in no CSV file that is given" in err[0]


def test_a_file_that_is_given_twice_counts_once_for_its_patient(pictures, write_model, monkeypatch, capsys):
    files, table = pictures
    monkeypatch.chdir(table.parent)
    options = "--weights", write_model(), "--by", "case"
    _, once, _ = run(monkeypatch, capsys, table, *options)
    again = ("./P1/a.png", files[0], "P1/../P1/a.png")  # named otherwise: the table knows whose they are all the same
    status, rows, err = run(monkeypatch, capsys, table, *again, *options)
    assert status == 0 and err[-1].startswith("predicted: 8;") and len(rows) == 10
    assert rows[-2:] == once[-2:]


def test_what_is_read_is_not_written_over(pictures, write_model, monkeypatch, capsys, tmp_path):
    files, table = pictures
    before = [file.read_bytes() for file in (*files, table)]
    weights = "--weights", write_model()
    for given, out in ((files[0], files[0]), (table, table), (table, files[1]), (tmp_path, files[2])):
        status, rows, err = run(monkeypatch, capsys, given, *weights, "--out", out)
        assert (status, rows) == (2, []) and "is read here; give another file" in err[-1]
    status, _, err = run(monkeypatch, capsys, tmp_path, *weights, "--overlays", tmp_path / "P1" / "seen")
    assert status == 2 and "lies in a folder that is read" in err[-1] and not (tmp_path / "P1" / "seen").exists()
    status, _, err = run(monkeypatch, capsys, files[0], *weights, "--out", tmp_path / "rows.jsonl")
    assert status == 2 and "would hold csv" in err[-1]
    assert before == [file.read_bytes() for file in (*files, table)]


def test_the_overlay_of_a_long_name_is_written(pictures, write_model, monkeypatch, capsys, tmp_path):
    long = pictures[0][0].with_name(f"{'n' * 250}.png")
    pictures[0][0].rename(long)
    status, _, _ = run(monkeypatch, capsys, long, "--weights", write_model(), "--overlays", tmp_path / "seen")
    assert status == 0 and [file.name for file in (tmp_path / "seen").iterdir()] == [f"00001-{'n' * 50}.png"]


def test_a_csv_file_without_pictures_says_what_it_lacks(pictures, write_model, monkeypatch, capsys, tmp_path):
    (tmp_path / "notes.csv").write_text("file,case\na.png,1\n")
    status, rows, err = run(monkeypatch, capsys, tmp_path / "notes.csv", pictures[0][0], "--weights", write_model())
    assert (status, len(rows)) == (2, 1)
    assert err[0].endswith("notes.csv: needs one column path; row 1 is 'file,case'")


@pytest.mark.parametrize(
    ("rows", "trouble"),
    [
        ("", "no rows below the header"),
        (",P1\n", "row 2, column path: empty"),
        ("folder,P1\n", "row 2, column path: .*folder is a folder; a cell names one picture"),
        ("a.png,unknown\n", "'unknown' is no name"),
        ("a.png,P1\nb.png,p1\n", "'P1' and 'p1' differ in spelling only"),
        ("a.png,14\nb.png,14.0\n", "'14' and '14.0' differ in spelling only"),
        ("a.png,P1\nb.png,nan\n", "'nan' is no name"),
        ("a.png,P1\nb.png,\n", "'' is no name"),
        ("a.png,P1\na.png,P2\n", "is of 'P1' and of 'P2'"),
        ("a.png,P1\nb.png\n", "row 3 does not have the 2 cells"),
    ],
)
def test_a_table_that_does_not_say_who_is_who_is_refused(tmp_path, rows, trouble):
    (tmp_path / "folder").mkdir()
    (tmp_path / "t.csv").write_text(f"path,case\n{rows}")
    with pytest.raises(HistotransferError, match=trouble):
        patients("case", [str(tmp_path / "t.csv")])


@pytest.mark.parametrize(
    ("by", "trouble"),
    [
        ("(?P<patient>", "not a regular expression"),
        ("case", "none is given"),
        ("patient", "none is given"),
    ],
)
def test_what_is_neither_a_pattern_nor_a_column_is_refused(by, trouble):
    with pytest.raises(HistotransferError, match=trouble):
        patients(by, ["a.png"])


def test_a_pattern_is_read_in_any_normal_form():
    assert patients("(?P<patient>Mu\u0308\\d)", [])("x/M\u00fc1_a.png") == "M\u00fc1"


def test_names_in_two_normal_forms_are_one_patient():
    patient_of = patients(BY_FOLDER, [])
    assert patient_of("x/Mu\u0308ller/a.png") == patient_of("x/M\u00fcller/b.png") == "M\u00fcller"
