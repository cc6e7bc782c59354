"""How the thresholds of the detectors in `evaluation.failures` were chosen: on synthetic histories, before any judging.

``python -m research.detectors`` writes `results/detectors`. Each threshold is the smallest of its grid whose rate of
false alarms is at most `FALSE_ALARMS` on histories of the family `exponential`. `histotransfer experiment failures`
measures how well the detectors do on other histories.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from histotransfer.errors import one_line_errors
from histotransfer.experiments.failures import THRESHOLDS, detect
from histotransfer.experiments.synthetic import draw_case
from histotransfer.records import environment, write_record

FALSE_ALARMS = 0.05
CASES = 500  # synthetic histories with each signature, and as many without
GRIDS = {
    "overfitting": (0.05, 0.075, 0.1, 0.125, 0.15, 0.2),
    "negative transfer": (0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
    "slow convergence": (1.25, 1.5, 1.75, 2.0, 2.5, 3.0),
}


def design(cases: int) -> pd.DataFrame:
    """Rates of hits and false alarms of every threshold on the design histories, and which threshold is chosen."""
    rows = []
    for signature, grid in GRIDS.items():
        drawn = [[draw_case(signature, truth, "exponential", i) for i in range(cases)] for truth in (True, False)]
        for threshold in grid:
            name = {THRESHOLDS[signature]: threshold}
            hits, alarms = (np.mean([detect(signature, case, **name).found for case in cases_of]) for cases_of in drawn)
            about = {"signature": signature, "threshold": threshold, "cases": cases}
            rows.append({**about, "hits": hits, "false alarms": alarms})
    sweep = pd.DataFrame(rows)
    allowed = sweep[sweep["false alarms"] <= FALSE_ALARMS]
    return sweep.assign(chosen=sweep.index.isin(allowed.groupby("signature")["threshold"].idxmin()))


def main(out: Annotated[Path, typer.Option(help="Folder for the record.")] = Path("results/detectors")) -> None:
    """Choose the thresholds of the detectors on synthetic histories; no data needed."""
    around, sweep = environment(), design(CASES)
    chosen = sweep[sweep["chosen"]].set_index("signature")["threshold"]
    record = {"cases": CASES, "false_alarms": FALSE_ALARMS, "thresholds": chosen.to_dict()}
    print(write_record(out, record, {"design": sweep}, around) / "design.csv")


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
