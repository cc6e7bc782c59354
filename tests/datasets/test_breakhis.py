import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histotransfer.datasets import breakhis
from histotransfer.datasets.breakhis import BENIGN_CODES, GRAMMAR, SUBTYPES, TREE, Name, parse_name
from histotransfer.errors import HistotransferError
from histotransfer.folders import said

names = st.builds(
    Name,
    subtype=st.sampled_from(sorted(SUBTYPES)),
    year=st.from_regex(r"[0-9]{2}", fullmatch=True),
    slide=st.from_regex(r"[0-9]{1,6}", fullmatch=True),
    suffix=st.from_regex(r"[A-Z]{0,3}", fullmatch=True),
    magnification=st.sampled_from([40, 100, 200, 400]),
    sequence=st.integers(0, 999),
)


def place(root, relative):
    path = root / TREE / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@given(names)
def test_a_written_name_is_read_back(name):
    assert parse_name(f"anywhere/{name}") == name


@settings(max_examples=50)
@given(st.from_regex(GRAMMAR, fullmatch=True))
def test_a_name_of_the_grammar_is_written_again_or_contradicts_itself(text):
    code, subtype = text[4], text[6:].split("-")[0]
    if (code == "B") == (subtype in BENIGN_CODES):
        assert str(parse_name(text)) == text[:-4] + ".png"
    else:
        with pytest.raises(HistotransferError, match="contradict"):
            parse_name(text)


def test_fields_of_a_name_by_hand():
    name = parse_name("SOB_B_TA-14-22549AB-100-007.png")
    assert (name.code, name.base_number, name.slide_id) == ("B", "14-22549", "14-22549AB")
    assert (name.magnification, name.sequence) == (100, 7)
    assert name.folder.as_posix() == "benign/SOB/tubular_adenoma/SOB_B_TA_14-22549AB/100X"


@pytest.mark.parametrize(
    "wrong",
    [
        "holiday.png",
        "SOB_B_A-14-22549AB-100-007.jpg",
        "SOB_B_A-14-22549AB-100-07.png",
        "SOB_B_A-14-22549AB-150-007.png",
        "SOB_B_A-14-22549ab-100-007.png",
        "SOB_B_XX-14-22549AB-100-007.png",
        "SOB_X_A-14-22549AB-100-007.png",
        "SOB_B_A_14-22549AB-100-007.png",
        " SOB_B_A-14-22549AB-100-007.png",
        "SOB_B_A-14-22549AB-100-007.png.png",
        "SOB_B_A-14-22549AB-100-007.png\n",
    ],
)
def test_a_name_outside_the_grammar_is_refused_with_its_path(wrong):
    with pytest.raises(HistotransferError, match=r"(?s)^some/where/.*: not a BreakHis file name"):
        parse_name(f"some/where/{wrong}")


@pytest.mark.parametrize("wrong", ["SOB_B_DC-14-1-40-001.png", "SOB_M_PT-14-1-40-001.png"])
def test_class_and_subtype_that_contradict_are_refused_with_the_path(wrong):
    with pytest.raises(HistotransferError, match=f"some/{wrong}: class . and subtype .* contradict"):
        parse_name(f"some/{wrong}")


def test_load_fills_the_table_from_names(tmp_path):
    place(tmp_path, "malignant/SOB/lobular_carcinoma/SOB_M_LC_14-13412CD/400X/SOB_M_LC-14-13412CD-400-011.png")
    place(tmp_path, "benign/SOB/adenosis/SOB_B_A_14-29960AB/40X/SOB_B_A-14-29960AB-40-001.png")
    columns = ["dataset", "label", "subtype", "magnification", "patient", "group", "split"]
    assert breakhis.load(tmp_path)[columns].to_numpy().tolist() == [
        ["breakhis", "benign", "adenosis", 40, "14-29960AB", "14-29960", ""],
        ["breakhis", "malignant", "lobular_carcinoma", 400, "14-13412CD", "14-13412", ""],
    ]


@pytest.mark.parametrize(
    ("relative", "trouble"),
    [
        ("benign/SOB/adenosis/SOB_B_A_14-1/40X/SOB_B_A-14-1-100-001.png", "misplaced"),
        ("benign/SOB/adenosis/SOB_B_A_14-1/40X/SOB_B_A-14-2-40-001.png", "misplaced"),
        ("malignant/SOB/adenosis/SOB_B_A_14-1/40X/SOB_B_A-14-1-40-001.png", "misplaced"),
        ("SOB_B_A-14-1-40-001.png", "misplaced"),
        ("benign/SOB/adenosis/SOB_B_A_14-1/40X/copy of SOB_B_A-14-1-40-001.png", "not a BreakHis file name"),
        ("benign/SOB/adenosis/SOB_M_A_14-1/40X/SOB_M_A-14-1-40-001.png", "contradict"),
    ],
)
def test_load_refuses_a_file_out_of_place_and_names_it(tmp_path, relative, trouble):
    path = place(tmp_path, relative)
    with pytest.raises(HistotransferError, match=trouble) as error:
        breakhis.load(tmp_path)
    assert str(error.value).startswith(str(path))


def test_load_needs_the_official_folder(tmp_path):
    with pytest.raises(HistotransferError, match=f"{tmp_path}: holds no {TREE}"):
        breakhis.load(tmp_path)
    (tmp_path / TREE).mkdir(parents=True)
    with pytest.raises(HistotransferError, match="no images found"):
        breakhis.load(tmp_path)


FIELDS = (
    "benign/SOB/adenosis/SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png",
    "malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523/100X/SOB_M_DC-14-2523-100-001.png",
)


def test_endings_in_capitals_links_and_what_systems_add(tmp_path):
    for field in FIELDS:
        path = place(tmp_path, field)
        path.rename(path.with_suffix(".PNG"))
        for name in (f"._{path.name}", "Thumbs.db", ".DS_Store", "notes.txt"):
            (path.parent / name).touch()
    linked = breakhis.parse_name("SOB_M_DC-14-2773-100-001.png")
    elsewhere = tmp_path / "elsewhere" / "100X"
    elsewhere.mkdir(parents=True)
    (elsewhere / str(linked)).touch()
    (tmp_path / TREE / linked.folder.parent).symlink_to(elsewhere.parent)
    passed_over = []
    table = breakhis.load(tmp_path, passed_over)
    assert sorted(table["patient"]) == ["14-22549AB", "14-2523", "14-2773"]
    assert said(passed_over) == ["passed over: .txt (2), system files (6)"]


@pytest.mark.parametrize("given", ["..", "BreaKHis_v1", "BreaKHis_v1/histology_slides", str(TREE)])
def test_a_folder_above_the_data_set_or_in_it_will_do(tmp_path, given):
    for field in FIELDS:
        place(tmp_path / "data", field)
    expected = breakhis.load(tmp_path / "data")
    assert breakhis.load(tmp_path / "data" / given).equals(expected)


def test_kaggles_folder_in_a_folder_of_the_same_name_is_found(tmp_path):
    for field in FIELDS:
        place(tmp_path / "BreaKHis_v1", field)
    assert len(breakhis.load(tmp_path)) == len(breakhis.load(tmp_path / "BreaKHis_v1")) == 2


@pytest.mark.parametrize("layout", ["BreaKHis 400X/train/benign", "train/benign", "breast/benign/SOB"])
def test_another_layout_is_named(tmp_path, layout):
    (tmp_path / layout).mkdir(parents=True)
    (tmp_path / layout / "SOB_B_A-14-22549AB-400-001.png").touch()
    with pytest.raises(HistotransferError, match=f"{layout}/SOB_B_A.* is one of its pictures, in another layout"):
        breakhis.load(tmp_path)


def test_phantom_is_read_by_the_same_loader(phantom_root):
    table = breakhis.load(phantom_root)
    assert table["patient"].nunique() == 24
    assert len(table) == 24 * 4
    assert set(table["subtype"]) == set(SUBTYPES.values())


def test_real_subset_has_the_documented_counts(data_root):
    table = breakhis.load(data_root)
    assert (len(table), table["patient"].nunique()) == (1361, 64)
    # The table of the data folder's README: images / slide ids of each class at each magnification.
    counts = table.groupby(["label", "magnification"])["patient"].agg(["size", "nunique"])
    assert counts.loc["benign"].to_numpy().tolist() == [[111, 17], [199, 13], [172, 12], [10, 7]]
    assert counts.loc["malignant"].to_numpy().tolist() == [[95, 15], [181, 15], [562, 34], [31, 6]]
    assert table.groupby("label")["group"].nunique().to_dict() == {"benign": 14, "malignant": 40}
    assert pd.crosstab(table["subtype"], table["magnification"]).loc["mucinous_carcinoma"].tolist() == [49, 38, 126, 25]


def test_every_official_name_is_read(data_root):
    lines = (data_root / "breakhis_folds" / "dsfold1.txt").read_text().split()
    parsed = [parse_name(line.split("|")[0]) for line in lines]
    assert len(set(parsed)) == 7909
    magnifications = [int(line.split("|")[1]) for line in lines]
    assert [name.magnification for name in parsed] == magnifications
    assert len({name.slide_id for name in parsed}) == 81
    assert len({name.base_number for name in parsed}) == 70
    assert pd.Series([name.subtype for name in parsed]).value_counts().to_dict() == {
        "DC": 3451, "F": 1014, "MC": 792, "LC": 626, "TA": 569, "PC": 560, "PT": 453, "A": 444,
    }  # fmt: skip
