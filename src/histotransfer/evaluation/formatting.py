"""Numbers as people read them."""

import numpy as np
import pandas as pd

LEAST_END = 5e-5  # what is smaller is shown as 0


def number(value: float, low: float, high: float, coverage: float = np.nan) -> str:
    """`0.84 [0.77, 0.90] 93 %`; without brackets where there is no interval, a dash where there is no value.

    Two decimals, but an end that these would make 0 keeps its first digit that is not: on which side of 0 an interval
    ends is what a verdict goes by. The value does so too where the interval leaves out 0.
    """
    if pd.isna(value):
        return "–"
    if pd.isna(low):
        return _rounded(value)
    text = f"{_end(value) if low * high > 0 else _rounded(value)} [{_end(low)},\N{NO-BREAK SPACE}{_end(high)}]"
    return text if pd.isna(coverage) else f"{text} {coverage * 100:.0f}\N{NO-BREAK SPACE}%"


def _rounded(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # never -0.00


def _end(value: float) -> str:
    if LEAST_END <= abs(value) < 0.005:
        return np.format_float_positional(value, precision=1, fractional=False, trim="-")  # never 8e-05
    return _rounded(value)
