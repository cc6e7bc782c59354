import csv
import os
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from histotransfer.datasets import breakhis, identities
from histotransfer.datasets.own import load, load_csv, load_folders, write_csv
from histotransfer.errors import HistotransferError
from histotransfer.folders import said

PATTERN = r"(?P<patient>P\d+)_\d+\.png"


@pytest.fixture
def files(tmp_path):
    """Four empty pictures in a folder beside the CSV."""
    (tmp_path / "pictures").mkdir()
    for name in "abcd":
        (tmp_path / "pictures" / f"{name}.png").touch()
    return tmp_path


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    return path


def write(folder, text, encoding="utf-8"):
    path = folder / "own.csv"
    path.write_bytes(text.encode(encoding))
    return path


def place(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_full_csv_becomes_the_image_table(files, monkeypatch):
    path = write(
        files,
        "path,label,patient,magnification,group\n"
        "pictures/a.png,luminal A,p1,40,g1\n"
        f"{files}/pictures/b.png,basal,p2,200,g1\n",
    )
    monkeypatch.chdir(files.parent)  # paths are relative to the CSV, not to where one stands
    table = load_csv(path.relative_to(files.parent), dataset="clinic")
    assert table.to_numpy().tolist() == [
        [f"{files}/pictures/a.png", "clinic", "luminal A", "luminal A", 40, "p1", "g1", ""],
        [f"{files}/pictures/b.png", "clinic", "basal", "basal", 200, "p2", "g1", ""],
    ]


def test_optional_columns_have_defaults_and_columns_any_order(files):
    table = load_csv(write(files, "patient,label,path\r\n007,x,pictures/a.png\r\n\r\n", "utf-8-sig"))
    assert table[["patient", "group", "magnification"]].to_numpy().tolist() == [["007", "007", 0]]


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)] * 2),
        min_size=1,
        max_size=4,
    )
)
def test_any_label_and_patient_come_through_clean(tmp_path_factory, pairs):
    pairs = [(identities.clean(label), identities.clean(patient)) for label, patient in pairs]
    names = [name for pair in pairs for name in pair]
    assume(not any(identities.is_missing(name) or identities.is_part(name) for name in names))
    assume(not any(identities.spellings(column) for column in zip(*pairs, strict=True)))
    folder = tmp_path_factory.mktemp("own")
    with (folder / "own.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "patient"])
        for i, (label, patient) in enumerate(pairs):
            (folder / f"{i}.png").touch()
            writer.writerow([f"{i}.png", label, patient])
    table = load_csv(folder / "own.csv")
    assert list(zip(table["label"], table["patient"], strict=True)) == pairs


@pytest.mark.parametrize(
    ("row", "trouble"),
    [
        ("pictures/z.png,x,p,40,g", r"row 3, column path: pictures/z\.png: no such file"),
        ("pictures,x,p,40,g", "row 3, column path: pictures: no such file"),
        (",x,p,40,g", "row 3, column path: empty"),
        ("pictures/b.png, ,p,40,g", "row 3, column label: empty"),
        ("pictures/b.png,x,,40,g", "row 3, column patient: empty"),
        ("pictures/b.png,x,p,,g", "row 3, column magnification: empty"),
        ("pictures/b.png,x,p,40,", "row 3, column group: empty"),
        ("pictures/b.png,x,p,x40,g", "row 3, column magnification: 'x40' is not a whole number"),
        ("pictures/b.png,nan,p,40,g", "row 3, column label: 'nan' is no name; write who or what it is"),
        ("pictures/b.png,x,NA,40,g", "row 3, column patient: 'NA' is no name"),
        ("pictures/b.png,x,p,40,None", "row 3, column group: 'None' is no name"),
        ("pictures/b.png,x,\u200b,40,g", "row 3, column patient: empty"),
        ("pictures/b.png,X,p,40,g", "label: 'X' and 'x' differ in spelling only; write each name in one way"),
        ("pictures/b.png,x,P1,40,g", "patient: 'P1' and 'p1' differ in spelling only"),
        ("pictures/b.png,x,p01,40,g", "patient: 'p01' and 'p1' differ in spelling only"),
        ("pictures/b.png,x,p1.0,40,g", r"patient: 'p1' and 'p1\.0' differ in spelling only"),
        ("pictures/b.png,Train,p,40,g", "labels Train: parts of a split, not classes; the split is made here"),
        (r"C:\scans\b.png,x,p,40,g", r"row 3, column path: .*: no such file; a path of Windows"),
        ("pictures/b.png,x,p,-40,g", "row 3, column magnification: '-40' is not"),
        ("pictures/b.png,x,p,4e1,g", "row 3, column magnification: '4e1' is not"),
        ("pictures/b.png,x,p", "row 3: 3 cells, the header has 5"),
        ("pictures/b.png,x,p,40,g,h", "row 3: 6 cells, the header has 5"),
        ("pictures/../pictures/a.png,x,p,40,g", "row 3, column path: the same file as row 2"),
        ("pictures/b.png,x,p1,40,other", "row 3, column group: patient p1 is in g1 and other"),
    ],
)
def test_a_bad_row_is_named_with_its_column(files, row, trouble):
    path = write(files, f"path,label,patient,magnification,group\npictures/a.png,x,p1,40,g1\n{row}\n")
    with pytest.raises(HistotransferError, match=f"^{path}: {trouble}") as error:
        load_csv(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("n" * 5000 + ".png", "n" * 200 + "..."),
        ("nul\0.png", r"nul\x00.png"),
        ("one", "one"),
        ("one/a.png", "one/a.png"),
    ],
    ids=["5,000 letters", "a zero byte", "links in a circle", "in such a link"],
)
def test_a_path_that_leads_nowhere_is_a_bad_row(files, name, shown):
    (files / "one").symlink_to("other")
    (files / "other").symlink_to("one")
    path = write(files, f"path,label,patient\npictures/a.png,x,p\n{name},x,p\n")
    with pytest.raises(HistotransferError) as error:
        load_csv(path)
    assert str(error.value) == f"{path}: row 3, column path: {shown}: no such file; paths start at the CSV's folder"


def test_every_problem_is_counted_and_the_first_are_named(files):
    rows = "".join(f"pictures/{i}.png,x,p\n" for i in range(8))
    with pytest.raises(HistotransferError) as error:
        load_csv(write(files, f"path,label,patient\n{rows}"))
    message = str(error.value)
    assert [f"row {i}," in message for i in range(2, 8)] == [True] * 5 + [False]
    assert message.endswith("; and 3 more")


@pytest.mark.parametrize(
    ("header", "trouble"),
    [
        ("path,label", "row 1, column patient: missing"),
        ("path,label,patient,magnifcation", "row 1, column magnifcation: unknown; write it as magnification"),
        ("path,label,patient,label", "row 1, column label: occurs twice"),
        ("path,label,patient,Label", "row 1, column label: occurs twice"),
        ("file,label,patient", "row 1, column path: missing, row 1 is 'file,label,patient'"),
        ("path:label:patient", "row 1, column path: missing"),
    ],
)
def test_a_bad_header_is_named(files, header, trouble):
    with pytest.raises(HistotransferError, match=trouble):
        load_csv(write(files, f"{header}\npictures/a.png,x,p,1\n"))


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (b"", "empty; it needs the columns path,label,patient"),
        (b"path,label,patient\n", "no images found"),
        (b"path,label,patient\na.png,\xff,p\n", "not a CSV file in UTF-8"),
        (b'path,label,patient\n"a.png,x,p\n', "not a CSV file in UTF-8"),
    ],
    ids=["empty", "header alone", "latin-1", "open quote"],
)
def test_a_file_that_is_no_csv_is_refused(tmp_path, content, trouble):
    path = tmp_path / "own.csv"
    path.write_bytes(content)
    with pytest.raises(HistotransferError, match=f"^{path}: {trouble}"):
        load_csv(path)


ROW = ("pictures/a.png", "x", "p")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_what_spreadsheets_write_is_read(files, separator, encoding):
    rows = [("Path", "LABEL", " Patient "), ROW]
    path = write(files, "\r\n".join(separator.join(row) for row in rows), encoding)
    assert load_csv(path)[["path", "label", "patient"]].to_numpy().tolist() == [[f"{files}/pictures/a.png", "x", "p"]]


def test_quotation_marks_count_behind_a_blank_and_the_line_of_a_spreadsheet_is_skipped(files):
    names = ["path", "label", "patient"]
    expected = [[f"{files}/pictures/a.png", "x", "p"]]
    spaced = write(files, 'path, label, patient\npictures/a.png, "x", "p"\n')
    assert load_csv(spaced)[names].to_numpy().tolist() == expected
    told = write(files, "sep=;\r\npath;label;patient\r\npictures/a.png;x;p\r\n")
    assert load_csv(told)[names].to_numpy().tolist() == expected
    with pytest.raises(HistotransferError, match=r"row 3, column path: b\.png: no such file; paths start at the CSV"):
        load_csv(write(files, "sep=;\r\npath;label;patient\r\nb.png;x;p\r\n"))


@pytest.mark.parametrize(
    ("written", "meant"), [("40x", 40), ("200X", 200), ("100.0", 100), ("40 x", 40), ("400×", 400), ("0", 0)]
)
def test_a_magnification_may_have_an_x(files, written, meant):
    table = load_csv(write(files, f"path,label,patient,magnification\npictures/a.png,x,p,{written}\n"))
    assert table["magnification"].tolist() == [meant]


@pytest.mark.parametrize(
    "written", [r"pictures\a.png", "./pictures/a.png", r".\pictures\a.png", "pictures/a.png\u200b"]
)
def test_a_path_is_found_as_it_is_meant(files, written):
    assert load_csv(write(files, f"path,label,patient\n{written},x,p\n"))["path"].tolist() == [
        f"{files}/pictures/a.png"
    ]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_path_is_found_in_the_other_normal_form(tmp_path, form):
    (tmp_path / unicodedata.normalize("NFD" if form == "NFC" else "NFC", "bürste.png")).touch()
    path = write(tmp_path, f"path,label,patient\n{unicodedata.normalize(form, 'bürste.png')},x,p\n")
    assert len(load_csv(path)) == 1


def test_empty_cells_behind_a_row_are_no_cells(files):
    assert len(load_csv(write(files, "path,label,patient\npictures/a.png,x,p,,\n,,,,\npictures/b.png,x,p\n"))) == 2


def test_further_columns_are_passed_over_and_said(files):
    passed_over = []
    load_csv(write(files, "path,label,patient,year,\npictures/a.png,x,p,2021,\n"), passed_over=passed_over)
    assert said(passed_over) == ["passed over: column year (1)"]


@pytest.mark.parametrize("other", ["Mu\u0308ller", " Müller", "Müller\u00a0", "\ufeffMüller", "Mü\u00adller"])
def test_one_patient_however_it_is_encoded(files, other):
    table = load_csv(write(files, f"path,label,patient\npictures/a.png,x,Müller\npictures/b.png,x,{other}\n"))
    assert table["patient"].unique().tolist() == ["Müller"]


def test_folders_whose_names_differ_in_spelling_only_are_refused(tmp_path):
    place(tmp_path, "Benign/P1_1.png", "benign/P2_1.png")
    with pytest.raises(HistotransferError, match="label: 'Benign' and 'benign' differ in spelling only"):
        load_folders(tmp_path, PATTERN)


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "val"), ("training", "testing")])
def test_folders_of_a_split_are_refused_with_the_remedy(tmp_path, names):
    place(tmp_path, *(f"{name}/benign/P1_1.png" for name in names))
    with pytest.raises(HistotransferError, match=r"parts of a split, not classes; .*: give one of these folders"):
        load_folders(tmp_path, r".*/(?P<patient>P\d+)_\d+\.png")


@pytest.mark.parametrize("names", [("40X", "200X"), ("100x", "400 x")])
def test_folders_of_magnifications_are_no_classes(tmp_path, names):
    place(tmp_path, *(f"{name}/P1_1.png" for name in names))
    with pytest.raises(HistotransferError, match="magnifications, not classes; give a folder"):
        load_folders(tmp_path, PATTERN)


def test_a_pattern_is_read_in_any_normal_form(tmp_path):
    place(tmp_path, "x/M\u00fc1_1.png")
    assert load_folders(tmp_path, "(?P<patient>Mu\u0308\\d)_.*")["patient"].tolist() == ["M\u00fc1"]


def test_folders_are_walked_like_all_others(tmp_path):
    place(tmp_path, "a/P1_1.PNG", "b/P2_1.png", "b/._P2_1.png", "b/Thumbs.db", "b/P2_1.png.bak", "else/P3_1.png")
    (tmp_path / "c").symlink_to(tmp_path / "else")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    passed_over = []
    table = load_folders(tmp_path, r"(?P<patient>P\d+)_\d+\.(?i:png)", passed_over=passed_over)
    assert table[["label", "patient"]].to_numpy().tolist() == [["a", "P1"], ["b", "P2"], ["c", "P3"], ["else", "P3"]]
    assert said(passed_over) == ["passed over: .bak (1), links that lead back (1), system files (2)"]
    for name in ("a", "b", "else"):
        for path in (tmp_path / name).glob("P*"):
            path.unlink()
    with pytest.raises(HistotransferError, match="no images found; passed over: links that lead back"):
        load_folders(tmp_path, PATTERN)


@pytest.mark.parametrize(
    ("rows", "trouble"),
    [
        ("a.png,x,p\nb.png,y,q\n", r"b\.png: the same picture as .*a\.png under another label and patient"),
        ("a.png,x,p\nb.png,y,p\n", r"b\.png: the same picture as .*a\.png under another label$"),
        ("a.png,x,p\nb.png,x,q\n", r"b\.png: the same picture as .*a\.png under another patient"),
        ("a.png,x,p\nc.tif,x,q\n", r"c\.tif: the same picture as .*a\.png under another patient"),
    ],
)
def test_one_picture_under_two_names_is_named(tmp_path, rows, trouble):
    picture(tmp_path / "a.png", 0)
    picture(tmp_path / "b.png", 0)
    picture(tmp_path / "c.tif", 0)
    with pytest.raises(HistotransferError, match=trouble):
        load(write(tmp_path, f"path,label,patient\n{rows}"))


def test_a_copy_of_the_same_patient_and_label_may_be(tmp_path):
    for name, seed in (("a.png", 0), ("b.png", 0), ("c.png", 1)):
        picture(tmp_path / name, seed)
    assert len(load(write(tmp_path, "path,label,patient\na.png,x,p\nb.png,x,p\nc.png,y,q\n"))) == 3


def test_pictures_that_cannot_be_decoded_are_named_before_training(tmp_path):
    picture(tmp_path / "a.png", 0)
    (tmp_path / "b.png").write_text("hello")
    with pytest.raises(HistotransferError, match=r"own\.csv: .*b\.png: not an image"):
        load(write(tmp_path, "path,label,patient\na.png,x,p\nb.png,y,q\n"))


def test_a_file_name_that_is_not_utf8_is_named(tmp_path):
    place(tmp_path, "ill/P1_1.png")
    (tmp_path / "ill" / os.fsdecode(b"P2_\xff.png")).touch()
    with pytest.raises(HistotransferError, match="its name is not UTF-8; rename it") as error:
        load_folders(tmp_path, r"(?P<patient>P\d).*")
    assert str(error.value).encode("utf-8")


def test_a_missing_csv_is_named(tmp_path):
    with pytest.raises(HistotransferError, match=r"none\.csv: cannot be read \(No such file"):
        load_csv(tmp_path / "none.csv")
    with pytest.raises(HistotransferError, match="cannot be read"):
        load_csv(tmp_path)


def test_folders_become_labels(tmp_path):
    place(tmp_path, "healthy/P1_1.png", "ill/P2_1.png", "ill/P2_2.png", "ill/.DS_Store", ".cache/x")
    table = load_folders(tmp_path, PATTERN)
    assert table[["label", "patient", "group", "magnification", "dataset"]].to_numpy().tolist() == [
        ["healthy", "P1", "P1", 0, "own"],
        ["ill", "P2", "P2", 0, "own"],
        ["ill", "P2", "P2", 0, "own"],
    ]


def test_a_pattern_reaches_into_subfolders_and_fills_the_optional_columns(tmp_path):
    place(tmp_path, "ill/P2/x40/a.png", "ill/P3/x200/a.png")
    table = load_folders(tmp_path, r"(?P<patient>(?P<group>P)\d)/x(?P<magnification>\d+)/.*\.png")
    assert table.sort_values("patient")[["patient", "group", "magnification"]].to_numpy().tolist() == [
        ["P2", "P", 40],
        ["P3", "P", 200],
    ]


@pytest.mark.parametrize(
    ("wrong", "trouble"),
    [
        ("ill/scan.png", r"ill/scan\.png: does not fit the pattern"),
        ("ill/deeper/P1_1.png", r"ill/deeper/P1_1\.png: does not fit"),
        ("P1_1.png", r"P1_1\.png: is in no class folder"),
    ],
)
def test_a_file_that_does_not_fit_is_reported_never_guessed(tmp_path, wrong, trouble):
    place(tmp_path, "healthy/P1_1.png", wrong)
    with pytest.raises(HistotransferError, match=f"^{tmp_path}: {trouble}") as error:
        load_folders(tmp_path, PATTERN)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "trouble"),
    [
        (r"P\d+_\d+\.png", "needs a group"),
        ("(?P<patient>", "not a regular expression"),
        ("(?P<patient>.)(?P<lable>.)", "unknown group lable; match it without a name"),
    ],
)
def test_a_pattern_without_patient_is_refused(tmp_path, pattern, trouble):
    with pytest.raises(HistotransferError, match=f"^pattern .*{trouble}"):
        load_folders(tmp_path, pattern)


def test_folders_that_are_not_there_or_empty(tmp_path):
    with pytest.raises(HistotransferError, match="nowhere: no such folder"):
        load_folders(tmp_path / "nowhere", PATTERN)
    with pytest.raises(HistotransferError, match="no images found"):
        load_folders(tmp_path, PATTERN)


@pytest.mark.parametrize("name", ["P1_x_1.png", "P1__1.png"])
def test_a_magnification_in_a_name_must_be_a_number(tmp_path, name):
    place(tmp_path, f"ill/{name}")
    with pytest.raises(HistotransferError, match=f"ill/{name}: "):
        load_folders(tmp_path, r"(?P<patient>P\d)_(?P<magnification>x?)_\d\.png")


def test_a_patient_in_two_groups_is_named_by_file(tmp_path):
    place(tmp_path, "ill/a-P1.png", "well/b-P1.png")
    with pytest.raises(HistotransferError, match=r"well/b-P1\.png: group: patient P1 is in a and b"):
        load_folders(tmp_path, r"(?P<group>.)-(?P<patient>P1)\.png")


def test_own_data_split_by_group(files):
    """The table is one that everything after takes."""
    from histotransfer.splits import grouped_split

    rows = "".join(f"pictures/{i}.png,{'yx'[i % 2]},p{i}\n" for i in range(20))
    place(files / "pictures", *(f"{i}.png" for i in range(20)))
    split = grouped_split(load_csv(write(files, f"path,label,patient\n{rows}")), folds=5)
    assert pd.crosstab(split["split"], split["label"]).min().min() > 0


def test_a_file_and_a_folder_are_told_apart(tmp_path):
    for seed, label in enumerate(("clear", "dark")):
        picture(tmp_path / label / f"P1{label}_1.png", seed)
    assert load(tmp_path, r"(?P<patient>P1\w+)_\d\.png")["patient"].tolist() == ["P1clear", "P1dark"]
    (tmp_path / "mine.csv").write_text("path,label,patient\nclear/P1clear_1.png,clear,P1\n")
    assert load(tmp_path / "mine.csv")["patient"].tolist() == ["P1"]
    with pytest.raises(HistotransferError, match="a pattern is for a folder"):
        load(tmp_path / "mine.csv", "(?P<patient>.*)")
    with pytest.raises(HistotransferError, match="nowhere: no such file or folder"):
        load(tmp_path / "nowhere", "(?P<patient>.*)")


def test_a_table_that_is_written_is_read_again(phantom_root, tmp_path):
    table = breakhis.load(phantom_root)
    again = load_csv(write_csv(table, tmp_path / "own.csv"), dataset="breakhis")
    assert again.equals(table.assign(subtype=table["label"]))
