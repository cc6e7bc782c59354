"""Numbers as people read them."""

import numpy as np
import pandas as pd

LEAST_END = 5e-5  # what is smaller is shown as 0


def number(value: float, low: float, high: float, coverage: float = np.nan, *, level: float = 0.0) -> str:
    """A value with its interval: `0.84 [0.77, 0.90] 93 %`; without brackets where there is none, a dash for no value.

    Two decimals; but a limit that would be rounded to 0 keeps its first non-zero digit, since a verdict depends on
    which side of 0 it is. So does the value where the interval excludes 0. A limit that would be rounded to another
    `level` on which a verdict depends has more decimals.
    """
    if pd.isna(value):
        return "–"
    if pd.isna(low):
        return _rounded(value)
    ends = f"[{_end(low, level)},\N{NO-BREAK SPACE}{_end(high, level)}]"
    text = f"{_end(value) if low * high > 0 else _rounded(value)} {ends}"
    return text if pd.isna(coverage) else f"{text} {coverage * 100:.0f}\N{NO-BREAK SPACE}%"


def _rounded(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # never -0.00


def _end(value: float, level: float = 0.0) -> str:
    if level and value != level and _rounded(value) == _rounded(level):
        return next(text for digits in range(3, 20) if float(text := f"{value:.{digits}f}") != level)
    if LEAST_END <= abs(value) < 0.005:
        return np.format_float_positional(value, precision=1, fractional=False, trim="-")  # never 8e-05
    return _rounded(value)
