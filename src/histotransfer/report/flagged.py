"""Which share of pictures `predict` notes or refuses, kind by kind: the record of `deploy.flagged`."""

from pathlib import Path

import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.formatting import number
from histotransfer.report.study import NotRunYet


def flagged(folder: str | Path) -> pd.DataFrame:
    """The shares of each kind, as a page shows them.

    Returns:
        One row per kind: `pictures`; `unlike training` (share with its 95 % interval, clustered by patient, slide or
        original); `other notes` and `refused` (shares of all pictures).

    Raises:
        NotRunYet: the folder is not there.
        HistotransferError: it is there and is no such record.
    """
    path = Path(folder) / "flagged.csv"
    if not Path(folder).exists():
        raise NotRunYet(f"{folder}: `histotransfer experiment flagged` makes it")
    try:
        table = pd.read_csv(path, index_col="kind")
        shown = pd.DataFrame(
            {
                "pictures": table["pictures"],
                "unlike training": [number(*row) for row in table[["unlike", "low", "high"]].to_numpy()],
                "other notes": table["otherwise noted"].map("{:.2f}".format),
                "refused": table["refused"].map("{:.2f}".format),
            }
        )
    except (OSError, ValueError, KeyError) as error:
        raise HistotransferError(f"{path}: no record of `histotransfer experiment flagged` ({error})") from error
    return shown.rename_axis(None)
