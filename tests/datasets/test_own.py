import csv

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histotransfer.datasets import breakhis
from histotransfer.datasets.own import load, load_csv, load_folders, write_csv
from histotransfer.errors import HistotransferError

PATTERN = r"(?P<patient>P\d+)_\d+\.png"


@pytest.fixture
def files(tmp_path):
    """Four empty pictures in a folder beside the CSV."""
    (tmp_path / "pictures").mkdir()
    for name in "abcd":
        (tmp_path / "pictures" / f"{name}.png").touch()
    return tmp_path


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
def test_any_label_and_patient_come_through_unchanged(tmp_path_factory, pairs):
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
        ("pictures/b.png,x,p,40x,g", "row 3, column magnification: '40x' is not a whole number"),
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
        ("path,label,patient,magnifcation", "row 1, column magnifcation: unknown"),
        ("path,label,patient,", r"row 1, column \(no name\): unknown"),
        ("path,label,patient,label", "row 1, column label: occurs twice"),
        ("path;label;patient", "row 1, column path: missing"),
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
        ("ill/P1_1.png.bak", r"ill/P1_1\.png\.bak: does not fit"),
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
        ("(?P<patient>.)(?P<lable>.)", "needs a group .* others may be"),
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
    for label in ("clear", "dark"):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"P1{label}_1.png").write_bytes(b"x")
    assert load(tmp_path, r"(?P<patient>P1\w+)_\d\.png")["patient"].tolist() == ["P1clear", "P1dark"]
    (tmp_path / "mine.csv").write_text("path,label,patient\nclear/P1clear_1.png,clear,P1\n")
    assert load(tmp_path / "mine.csv")["patient"].tolist() == ["P1"]
    with pytest.raises(HistotransferError, match="a pattern is for a folder"):
        load(tmp_path / "mine.csv", "(?P<patient>.*)")


def test_a_table_that_is_written_is_read_again(phantom_root, tmp_path):
    table = breakhis.load(phantom_root)
    again = load_csv(write_csv(table, tmp_path / "own.csv"), dataset="breakhis")
    assert again.equals(table.assign(subtype=table["label"]))
