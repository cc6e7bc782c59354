import pytest

from histotransfer.datasets.table import COLUMNS, image_table
from histotransfer.errors import HistotransferError

ROW = {"path": "/b.png", "dataset": "made", "label": "benign", "patient": "p1"}


def test_left_out_columns_get_their_defaults_and_rows_are_sorted_by_path():
    table = image_table([ROW, ROW | {"path": "/a.png", "label": "malignant"}], where="here")
    assert tuple(table.columns) == COLUMNS
    assert table["path"].tolist() == ["/a.png", "/b.png"]
    assert table["subtype"].tolist() == table["label"].tolist() == ["malignant", "benign"]
    assert table[["magnification", "group", "split"]].to_numpy().tolist() == [[0, "p1", ""]] * 2


@pytest.mark.parametrize(
    "broken",
    [{"label": ""}, {"patient": ""}, {"magnification": -40}, {"magnification": "40x"}, {"split": "tset"}],
    ids=lambda broken: str(broken),
)
def test_a_row_that_breaks_the_schema_is_refused_in_one_line(broken):
    with pytest.raises(HistotransferError, match=r"^here: not an image table") as error:
        image_table([ROW | broken], where="here")
    assert "\n" not in str(error.value)


def test_the_same_file_twice_is_refused():
    with pytest.raises(HistotransferError, match="path"):
        image_table([ROW, ROW], where="here")


def test_no_rows_are_no_table():
    with pytest.raises(HistotransferError, match="here: no images found"):
        image_table([], where="here")
