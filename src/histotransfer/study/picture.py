"""What the README and the landing page show of the study: one figure and the table of verdicts, from the records.

``make picture`` draws the README's figure; the book draws its own when it is built.
"""

import contextlib
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from histotransfer.evaluation.metrics import ALL, MEAN
from histotransfer.figures import forest, use_style
from histotransfer.study.answers import answers
from histotransfer.study.tables import gap, number, with_intervals
from histotransfer.study.verdicts import PROPOSED, NotRunYet, Study

TARGET = Path("book/_static/study.png")
FIGURE = "study.png"
CAPTION = (
    "The same recipe (SE-DenseNet from ImageNet, head and block 4 trained) on the same real images, split in two ways."
    " Split by patient its accuracy is {patient}, split by image {image} (mean over 40x, 100x and 200x, 95 % intervals"
    " clustered by patient). Dashed: the paper's claim, whose split is not stated."
)


def measured(study: Study) -> pd.DataFrame:
    """What the figure shows: the trained network split by patient and by image, in the form of `with_intervals`."""
    runs = {f"split by {split}": study.within("leakage-trained", split) for split in ("patient", "image")}
    table = with_intervals(runs)
    return table[table["magnification"] != ALL]


def picture(table: pd.DataFrame, claim: float) -> Figure:
    """Accuracy of one network at each magnification, split in both ways (`measured`), beside what is claimed."""
    use_style()
    return forest(table, "accuracy", claim)


def caption(table: pd.DataFrame) -> str:
    """`CAPTION` with its numbers, of the same table."""
    means = table.query("metric == 'accuracy' and magnification == 'mean'").set_index("run")
    rows = {split: means.loc[f"split by {split}", ["value", "low", "high"]] for split in ("patient", "image")}
    return CAPTION.format(**{split: number(*row) for split, row in rows.items()})


def verdicts(study: Study) -> str:
    """The table of verdicts in Markdown: one line a claim or part of one."""
    lines = ["| claim | verdict | result | what was compared | n |", "|---|---|---|---|---|"]
    for claim, row in answers(study).iterrows():
        compared = f"{row['compared']} ({row['metric']})"
        cells = (f"{claim}: {row['claim']}", f"**{row['verdict']}**", row["result"], compared, row["n"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def bar(study: Study) -> str:
    """The proposed network minus the frozen probe, in a sentence."""
    table = gap(study.pooled("primary", "frozen-probe"), study.pooled("primary", PROPOSED))
    means = table[table["magnification"] == MEAN].set_index("metric")
    auroc, accuracy = (number(*means.loc[metric, ["value", "low", "high"]]) for metric in ("auroc", "accuracy"))
    about = means.iloc[0]
    return (
        f"**The bar.** {PROPOSED} minus a logistic regression on the features of an ImageNet network that never saw"
        " tissue, same splits and colours, mean over 40x, 100x and 200x:"
        f" AUROC {auroc}, accuracy {accuracy} ({about['images']} images, {about['patients']} patients).\n"
    )


def write_summary(study: Study, folder: Path) -> None:
    """Write ``folder/summary.md``, the figure, the table and the bar as a page includes them, and the figure beside it.

    While their experiments are not finished there is no figure and no bar, and the table says which claims are not run.
    """
    folder.mkdir(parents=True)
    text = ""
    with contextlib.suppress(NotRunYet):
        table = measured(study)
        figure = picture(table, study.claims["C1"]["threshold"])
        figure.savefig(folder / FIGURE, metadata={"Software": None})
        text += (
            f":::{{figure}} {folder.name}/{FIGURE}\n:name: fig-summary\n:alt: {figure.alt}\n\n{caption(table)}\n:::\n\n"
        )
    text += f":::{{table}} What the study says of each claim.\n:name: tab-summary\n\n{verdicts(study)}\n:::\n"
    with contextlib.suppress(NotRunYet):
        text += f"\n{bar(study)}"
    (folder / "summary.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    whole = Study("study", "results")
    picture(measured(whole), whole.claims["C1"]["threshold"]).savefig(TARGET, metadata={"Software": None})
    print(TARGET)
