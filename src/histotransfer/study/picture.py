"""The README's picture, drawn from the committed record: ``make picture``."""

from pathlib import Path

from histotransfer.figures import forest, use_style
from histotransfer.study.tables import read_experiment, with_intervals

TARGET = Path("book/_static/spine.png")

if __name__ == "__main__":
    use_style()
    runs = read_experiment("results/spine", ["majority", "frozen-probe", "ladder"])
    forest(with_intervals(runs), "auroc").savefig(TARGET, metadata={"Software": None})
    print(TARGET)
