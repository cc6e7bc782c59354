import pandas as pd
import pytest

from histotransfer.errors import HistotransferError
from histotransfer.report.flagged import flagged
from histotransfer.report.study import NotRunYet


def test_shares_are_shown_with_their_interval(tmp_path):
    row = {
        "pictures": 58,
        "groups": 5,
        "unlike": 0.5,
        "low": 0.125,
        "high": 0.875,
        "otherwise noted": 0.1,
        "refused": 0.0,
    }
    pd.DataFrame([row], index=pd.Index(["UCSB"], name="kind")).to_csv(tmp_path / "flagged.csv")
    shown = flagged(tmp_path)
    assert list(shown.columns) == ["pictures", "unlike training", "other notes", "refused"]
    assert shown.loc["UCSB"].tolist() == [58, "0.50 [0.12,\N{NO-BREAK SPACE}0.88]", "0.10", "0.00"]


def test_a_missing_record_is_not_run_yet_and_a_broken_one_is_named(tmp_path):
    with pytest.raises(NotRunYet, match="experiment flagged"):
        flagged(tmp_path / "none")
    (tmp_path / "flagged.csv").write_text("kind,other\nUCSB,1\n")
    with pytest.raises(HistotransferError, match=r"flagged\.csv: no record"):
        flagged(tmp_path)
