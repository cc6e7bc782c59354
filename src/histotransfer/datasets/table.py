"""The image table: the one form that every data set has throughout the project.

Loaders make it, splits fill its `split` column, metrics group by its other columns.
"""

from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from histotransfer.errors import HistotransferError
from histotransfer.files import readable

PARTS = ("train", "validation", "test")

SCHEMA = pa.DataFrameSchema(
    {
        "path": pa.Column(str, pa.Check.str_length(min_value=1), unique=True, description="file, absolute"),
        "dataset": pa.Column(str, pa.Check.str_length(min_value=1), description="breakhis, lc25000, ..."),
        "label": pa.Column(str, pa.Check.str_length(min_value=1), description="class that is predicted"),
        "subtype": pa.Column(str, description="finer class; the label again where there is none"),
        "magnification": pa.Column(int, pa.Check.ge(0), description="objective, 40 to 400; 0: not stated"),
        "patient": pa.Column(str, pa.Check.str_length(min_value=1), description="patient or slide id as published"),
        "group": pa.Column(
            str, pa.Check.str_length(min_value=1), description="strictest unit kept together in a split"
        ),
        "split": pa.Column(str, pa.Check.isin(["", *PARTS]), description="empty until a split assigns a part"),
    },
    index=pa.Index(int),
    strict=True,
    ordered=True,
)
COLUMNS = tuple(SCHEMA.columns)


def image_table(rows: list[dict], *, where: str | Path) -> pd.DataFrame:
    """Build and check an image table.

    Args:
        rows: one mapping per image; `subtype`, `magnification`, `group` and `split` may be left out and then are
            the label, 0, the patient and `""` respectively.
        where: the folder or file the rows came from, named in errors.

    Returns:
        A frame with exactly `COLUMNS`, one row per image, sorted by path: no file system's order leaks in.

    Raises:
        HistotransferError: no rows, a row that breaks the schema, or a file name that is not UTF-8.
    """
    if not rows:
        raise HistotransferError(f"{where}: no images found; is this the folder that holds the data set?")
    frame = pd.DataFrame(rows)
    if strange := [path for path in map(str, frame["path"]) if path != readable(path)]:
        raise HistotransferError(f"{readable(strange[0])}: its name is not UTF-8; rename it ({len(strange)} in all)")
    defaults = {"subtype": frame["label"], "magnification": 0, "group": frame["patient"], "split": ""}
    for column, default in defaults.items():
        if column not in frame:
            frame[column] = default
    frame = frame.sort_values("path", ignore_index=True)[list(COLUMNS)]
    try:
        return SCHEMA.validate(frame)
    except pa.errors.SchemaError as error:
        raise HistotransferError(f"{where}: not an image table: {' '.join(str(error).split())}") from error
