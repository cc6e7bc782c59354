"""What the README and the landing page show of the study: one figure and the table of verdicts, from the records.

``make picture`` draws the README's figure; the book draws its own when it is built.
"""

import contextlib
from pathlib import Path

from matplotlib.figure import Figure

from histotransfer.figures import forest, use_style
from histotransfer.study.answers import answers
from histotransfer.study.tables import with_intervals
from histotransfer.study.verdicts import PROPOSED, NotRunYet, Study

TARGET = Path("book/_static/study.png")
FIGURE = "study.png"
CAPTION = (
    "AUROC on real tissue at each magnification, out of fold, five folds and three seeds, patients kept apart, with"
    " 95 % intervals clustered by patient. 400x is only tested."
)
SHOWN = ("majority", "frozen-probe", "plain", PROPOSED)


def picture(study: Study) -> Figure:
    """AUROC of the baselines, plain DenseNet and the paper's model at each magnification, out of fold."""
    use_style()
    return forest(with_intervals({arm: study.pooled("primary", arm) for arm in SHOWN}), "auroc")


def verdicts(study: Study) -> str:
    """The table of verdicts in Markdown: one line a claim or part of one."""
    lines = ["| claim | what was compared | result | n | verdict |", "|---|---|---|---|---|"]
    for claim, row in answers(study).iterrows():
        cells = (f"{claim}: {row['claim']}", row["compared"], row["result"], row["n"], f"**{row['verdict']}**")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_summary(study: Study, folder: Path) -> None:
    """Write ``folder/summary.md``, the table and the figure as a page includes them, and the figure beside it.

    While the primary experiment is not finished there is no figure, and the table says which claims are not run.
    """
    folder.mkdir(parents=True)
    text = f":::{{table}} What the study says of each claim.\n:name: tab-summary\n\n{verdicts(study)}\n:::\n"
    with contextlib.suppress(NotRunYet):
        figure = picture(study)
        figure.savefig(folder / FIGURE, metadata={"Software": None})
        text += f"\n:::{{figure}} {folder.name}/{FIGURE}\n:name: fig-summary\n:alt: {figure.alt}\n\n{CAPTION}\n:::\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    picture(Study("study", "results")).savefig(TARGET, metadata={"Software": None})
    print(TARGET)
