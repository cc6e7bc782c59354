"""What every run was given of the treatments that it has."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from histotransfer.figures.style import PALETTE, SMALL, WIDTH, described

MEASURES = {  # of doses, by treatment and name in the rule
    ("gates", "distance"): "distance of gates\nfrom 1",
    ("gates", "spread"): "spread of a gate\nover images",
    ("fine-tuning", "block4"): "relative change\nof block 4",
    ("fine-tuning", "block3"): "relative change\nof block 3",
    ("fine-tuning", "training_log_loss"): "log-loss in\ntraining (nats)",
    ("lung", "accuracy"): "accuracy\non LC25000",
    ("lung", "cka"): "CKA, before\nand after lung",
}


def doses(table: pd.DataFrame) -> Figure:
    """What every run was given of each treatment: one panel per measure, a dot per run; on grey a dose is too small.

    Args:
        table: as `report.doses.by_run` returns it, of the treatments in `MEASURES`.
    """
    panels = list(table.groupby(["treatment", "measure"], sort=False))
    arms = max((list(runs["arm"].unique()) for _, runs in panels), key=len)[::-1]  # some arms lack a treatment
    rows, columns = -(-len(panels) // 2), 2
    size = WIDTH, 0.3 + rows * (0.75 + 0.17 * len(arms))
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
    sentences = []
    for axis, (measure, of_measure) in zip(axes.flat, panels, strict=False):
        least, most = of_measure["threshold"].iloc[0], of_measure["value"].max()
        for arm, runs in of_measure.groupby("arm", sort=False):
            axis.plot(runs["value"], [arms.index(arm)] * len(runs), "o", ms=5, alpha=0.4, mew=0, color=PALETTE["blue"])
            low, middle, high = runs["value"].quantile([0, 0.5, 1])
            sentences.append(
                f"{MEASURES[measure].replace(chr(10), ' ')}, {arm}: {middle:.2g} ({low:.2g} to {high:.2g})"
            )
        at_most = of_measure["at_most"].iloc[0]
        edge = 1.08 * max(most, least)
        axis.axvspan(*((least, edge) if at_most else (0, least)), color="0.88", zorder=0)
        axis.axvline(least, color="0.3", ls="--", lw=1)
        axis.set(xlim=(0, edge), ylim=(-0.6, len(arms) - 0.4))
        axis.set_yticks(range(len(arms)), arms, fontsize=SMALL)
        axis.set_xlabel(MEASURES[measure], fontsize=SMALL)
        sentences[-1] += f", asked {'at most' if at_most else 'at least'} {least:g}"
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    return described(figure, f"Doses of each arm's runs, median and range. {'; '.join(sentences)}.")
