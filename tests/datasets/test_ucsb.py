import pytest
from hypothesis import given
from hypothesis import strategies as st

from histotransfer.datasets import ucsb
from histotransfer.datasets.ucsb import GRAMMAR, TREE, parse_name
from histotransfer.errors import HistotransferError
from histotransfer.folders import said


@given(st.from_regex(GRAMMAR, fullmatch=True))
def test_a_name_of_the_grammar_is_read_and_written_again(text):
    assert str(parse_name(f"anywhere/{text}")) == text[:-3] + text[-3:].lower()


def test_fields_of_a_name_by_hand():
    name = parse_name("ytma49_042203_malignant2_ccd.tif")
    assert (name.slide_id, name.date, name.label, name.number) == ("ytma49", "042203", "malignant", "2")


@pytest.mark.parametrize(
    "wrong",
    [
        "ytma49_042203_malignant2_ccd.jpg",
        "ytma49_042203_malignant2_ccd.tiff",
        "ytma49_042203_malignant_ccd.tif",
        "ytma49_042203_normal2_ccd.tif",
        "ytma49_04220_malignant2_ccd.tif",
        "ytma_042203_malignant2_ccd.tif",
        "ytma49_042203_malignant2.tif",
        " ytma49_042203_malignant2_ccd.tif",
        "ytma49_042203_malignant2_ccd.tif\n",
    ],
)
def test_a_name_outside_the_grammar_is_refused_with_its_path(wrong):
    with pytest.raises(HistotransferError, match=r"(?s)^some/where/.*: not a UCSB file name"):
        parse_name(f"some/where/{wrong}")


def test_load_keeps_a_slide_together(tmp_path):
    (tmp_path / TREE).mkdir()
    for name in ("ytma49_042203_malignant2_ccd.tif", "ytma49_111003_benign1_ccd.png", "ytma10_010704_benign1_ccd.tif"):
        (tmp_path / TREE / name).touch()
    columns = ["dataset", "label", "subtype", "magnification", "patient", "group"]
    assert ucsb.load(tmp_path)[columns].to_numpy().tolist() == [
        ["ucsb", "benign", "benign", 0, "ytma10", "ytma10"],
        ["ucsb", "malignant", "malignant", 0, "ytma49", "ytma49"],
        ["ucsb", "benign", "benign", 0, "ytma49", "ytma49"],
    ]


def test_endings_in_capitals_links_and_what_systems_add(tmp_path):
    names = ["ytma49_042203_malignant2_ccd.TIF", "._ytma49_042203_malignant2_ccd.TIF", "desktop.ini", "desktop.txt"]
    (tmp_path / "elsewhere").mkdir()
    for name in names:
        (tmp_path / "elsewhere" / name).touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / TREE).symlink_to(tmp_path / "elsewhere")
    passed_over = []
    assert ucsb.load(tmp_path / "data", passed_over)["patient"].tolist() == ["ytma49"]
    assert said(passed_over) == ["passed over: .txt (1), system files (2)"]


@pytest.mark.parametrize("given", [".", "data", "data/UCSB_breast"])
def test_a_folder_above_the_data_set_or_in_it_will_do(tmp_path, given):
    (tmp_path / "data" / TREE).mkdir(parents=True)
    (tmp_path / "data" / TREE / "ytma49_042203_malignant2_ccd.tif").touch()
    assert len(ucsb.load(tmp_path / given)) == 1


def test_load_refuses_what_does_not_belong(tmp_path):
    with pytest.raises(HistotransferError, match=f"{tmp_path}: holds no {TREE}"):
        ucsb.load(tmp_path)
    (tmp_path / TREE).mkdir()
    with pytest.raises(HistotransferError, match="no images found"):
        ucsb.load(tmp_path)
    (tmp_path / TREE / "scan.tif").touch()
    with pytest.raises(HistotransferError, match=r"scan\.tif: not a UCSB file name"):
        ucsb.load(tmp_path)


def test_real_set_has_the_documented_counts(data_root):
    table = ucsb.load(data_root)
    assert table["label"].value_counts().to_dict() == {"benign": 32, "malignant": 26}
    assert table["group"].nunique() == 5
    assert (table["patient"] == "ytma49").sum() == 34
