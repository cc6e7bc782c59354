"""What the README and the landing page show of the study: one figure and the table of verdicts, from the records.

``make picture`` draws the README's figure; the book draws its own when it is built.
"""

from pathlib import Path

from matplotlib.figure import Figure

from histotransfer.figures import forest, use_style
from histotransfer.study.answers import answers
from histotransfer.study.tables import with_intervals
from histotransfer.study.verdicts import PROPOSED, Study

TARGET = Path("book/_static/study.png")
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


if __name__ == "__main__":
    picture(Study("study", "results")).savefig(TARGET, metadata={"Software": None})
    print(TARGET)
