import pytest

from histotransfer.datasets.summary import count_images, described, load_present
from histotransfer.datasets.table import image_table
from histotransfer.errors import HistotransferError
from histotransfer.folders import PassedOver


def row(i, label, patient, magnification, group=None):
    return {
        "path": f"/{i}.png", "dataset": "made", "label": label, "patient": patient,
        "group": group or patient, "magnification": magnification,
    }  # fmt: skip


def test_counts_by_hand():
    table = image_table(
        [
            row(0, "benign", "1A", 100, "1"),
            row(1, "benign", "1B", 40, "1"),
            row(2, "benign", "2", 100),
            row(3, "malignant", "2", 100),
            row(4, "malignant", "3", 400),
        ],
        where="made",
    )
    counts = count_images(table)
    assert list(counts.columns) == ["40x", "100x", "400x", "all", "patients", "groups"]
    assert counts.loc["benign"].tolist() == [1, 2, 0, 3, 3, 2]
    assert counts.loc["malignant"].tolist() == [0, 1, 1, 2, 2, 2]
    assert counts.loc["all"].tolist() == [1, 3, 1, 5, 4, 3]  # patient 2 is of both classes, yet one patient


def test_images_without_magnification_have_one_column():
    counts = count_images(image_table([row(0, "lung_n", "a", 0), row(1, "lung_aca", "b", 0)], where="made"))
    assert list(counts.columns) == ["images", "patients", "groups"]
    assert counts.loc["all"].tolist() == [2, 2, 2]


def test_both_data_sets_of_a_folder_are_found(phantom_root):
    tables = load_present(phantom_root)
    assert list(tables) == ["BreakHis", "LC25000 (lung)"]
    assert {name: set(table["dataset"]) for name, table in tables.items()} == {
        "BreakHis": {"breakhis"},
        "LC25000 (lung)": {"lc25000"},
    }


def test_colon_and_ucsb_are_found_too(tmp_path):
    for file in (
        "lung_colon_image_set/colon_image_sets/colon_n/colonn1.jpeg",
        "lung_colon_image_set/colon_image_sets/colon_aca/colonca1.jpeg",
        "UCSB_breast/ytma10_010704_benign1_ccd.tif",
    ):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    (tmp_path / "lc25000_groups").mkdir()
    for label, stem in (("colon_n", "colonn"), ("colon_aca", "colonca")):
        (tmp_path / "lc25000_groups" / f"{label}.csv").write_text(f"file,group\n{stem}1.jpeg,0\n")
    tables = load_present(tmp_path)
    assert {name: len(table) for name, table in tables.items()} == {"LC25000 (colon)": 2, "UCSB": 1}


def test_a_table_is_described_with_what_was_passed_over():
    table = image_table([row(0, "benign", "a", 40), row(1, "malignant", "b", 40)], where="made")
    passed_over = [PassedOver("x/Thumbs.db", "system files")]
    lines = described(table, passed_over).splitlines()
    assert lines[-1] == "passed over: system files (1)"
    assert lines[-2].split() == ["all", "2", "2", "2"]
    assert described(table, passed_over, verbose=True).endswith("\n  x/Thumbs.db: system files")


def test_data_sets_are_found_from_above_and_what_is_passed_over_is_kept(phantom_root, tmp_path):
    (tmp_path / "data").symlink_to(phantom_root)
    assert list(load_present(tmp_path)) == ["BreakHis", "LC25000 (lung)"]
    passed_over = []
    (tmp_path / "own" / "UCSB_breast").mkdir(parents=True)
    for name in ("ytma10_010704_benign1_ccd.tif", "Thumbs.db"):
        (tmp_path / "own" / "UCSB_breast" / name).touch()
    assert list(load_present(tmp_path / "own", passed_over)) == ["UCSB"]
    assert [kind for _, kind in passed_over] == ["system files"]


def test_a_folder_without_data_sets_is_refused(tmp_path):
    with pytest.raises(HistotransferError, match=f"{tmp_path}: holds neither .* they lie$"):
        load_present(tmp_path)
    (tmp_path / "Images").mkdir()
    (tmp_path / "Images" / "ytma10_010704_benign1_ccd.tif").touch()
    with pytest.raises(HistotransferError, match=r"Images/ytma10.*\.tif is one of its pictures, in another layout"):
        load_present(tmp_path)
