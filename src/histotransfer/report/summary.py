"""The study's finding on the README and the first page, from the records: two figures and a few sentences.

``make picture`` draws the README's figure; the book draws its own when it is built.
"""

import contextlib
import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from histotransfer.evaluation.comparisons import CONTRADICTED, NO_EFFECT, NOT_GIVEN, SUPPORTED, UNDECIDED
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.intervals import mean_intervals
from histotransfer.evaluation.metrics import ALL, MEAN, MEAN_OVER
from histotransfer.figures import claims, forest, use_style
from histotransfer.records import Run
from histotransfer.report.answers import answers
from histotransfer.report.doses import is_short, read_rule
from histotransfer.report.study import NotRunYet, Study
from histotransfer.report.tables import gap, with_intervals
from histotransfer.report.verdicts import NOT_RUN, Judge

TARGET = Path("book/_static/study.png")
ENDS = ["value", "low", "high"]
SPLITS = ("patient", "image")
VERDICTS = (CONTRADICTED, NO_EFFECT, NOT_GIVEN, UNDECIDED, SUPPORTED, NOT_RUN)  # bad news first
FINDING = (
    "**{patient} of images right on new patients, {image} where the same patients are in training and test.** That is"
    " one DenseNet-121 recipe, trained for each magnification on the same real images, split in two ways"
    " ({{numref}}`fig-summary`). The paper reports more than {claim}; its abstract and summaries do not state its"
    " split."
)
DESIGN = (
    " Our version of the paper's design, trained on all magnifications together, is right on {design} of images of new"
    " patients; a regression on the features of a network that never saw tissue, on {probe}."
)
NO_FINDING = "The network that is split both ways, by patient and by image, is **not run yet**.\n"
CAPTION = (
    "Accuracy on {images} images of {patients} patients (benign + malignant). By image minus by patient: {gap}. Each"
    " dot: five networks, one per fold, of one seed."
)
SHORT = " At {magnifications} training moved the weights less than our rule asks."
CAPTION_OF_CLAIMS = (
    "Every claim of the paper on real tissue: how far one network lies beyond what is claimed, with 95 % intervals by"
    " patient. Shaded: a gain too small to be worth having. In grey: the smallest true difference that four of five"
    " such studies would show."
)


def measured(study: Study) -> pd.DataFrame:
    """The numbers of the figure: the trained network split by patient and by image, in the form of `with_intervals`.

    Raises:
        NotRunYet: runs of leakage-trained are missing.
    """
    table = with_intervals({f"split by {split}": run for split, run in _split_both_ways(study).items()})
    return table[table["magnification"] != ALL]


def _split_both_ways(study: Study) -> dict[str, Run]:
    return {split: study.within("leakage-trained", split) for split in SPLITS}


def larger_class(study: Study) -> pd.Series:
    """Share of the larger class among the images of `measured`, by magnification, and the mean of these shares."""
    images = study.within("leakage-trained", "patient").predictions
    shares = images.groupby("magnification")["truth"].agg(lambda truth: truth.value_counts(normalize=True).max())
    return pd.concat([shares.rename(str), pd.Series({MEAN: shares.mean()})])


def picture(study: Study, table: pd.DataFrame) -> Figure:
    """Accuracy at each magnification with both splits (`measured`), beside the claim and the larger class."""
    use_style()
    return forest(table, "accuracy", study.claims["C1"]["threshold"], larger_class(study))


def finding(study: Study, table: pd.DataFrame) -> str:
    """`FINDING` with the mean accuracies of `measured`, in per cent; and `DESIGN`, where its runs are there."""
    means = _means(table)["value"]
    shares = {split: means[f"split by {split}"] for split in SPLITS}
    shares["claim"], text = study.claims["C1"]["threshold"], FINDING
    with contextlib.suppress(NotRunYet):
        for name, arm in (("design", "se-lung"), ("probe", "frozen-probe")):
            tested = Judge(study).of_seeds("primary", arm)
            shares[name] = mean_intervals(tested, "magnification", wanted=["accuracy"]).loc["accuracy", "value"]
        text += DESIGN
    return text.format(**{name: f"{100 * share:.0f} %" for name, share in shares.items()}) + "\n"


def caption(study: Study, table: pd.DataFrame) -> str:
    """`CAPTION` with its numbers: n of the table, and the difference of its two splits, paired by patient."""
    runs = _split_both_ways(study)
    apart = gap(runs["patient"], runs["image"], metrics=["accuracy"])
    ends = apart[apart["magnification"] == MEAN].iloc[0][ENDS]
    text = CAPTION.format(**_means(table).iloc[0][["images", "patients"]], gap=number(*ends))
    asked = read_rule(study.study)["dose"]["fine-tuning"]
    short = [at for at in MEAN_OVER if all(is_short(run, "fine-tuning", asked) for run in _trained_within(study, at))]
    return text + (SHORT.format(magnifications=", ".join(f"{at}x" for at in short)) if short else "")


def _trained_within(study: Study, magnification: int) -> list[Run]:
    return [run for split in SPLITS for run in study.runs("leakage-trained", f"{split}-{magnification}")]


def _means(table: pd.DataFrame) -> pd.DataFrame:
    return table.query("metric == 'accuracy' and magnification == 'mean'").set_index("run")


def by_verdict(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The lines of the table of `answers` under their verdicts, in the order of `VERDICTS`; without empty ones."""
    return {name: rows for name in VERDICTS if len(rows := table[table["verdict"].str.startswith(name)])}


def tally(table: pd.DataFrame) -> str:
    """A sentence that counts the verdicts in the table of `answers`."""
    each = ", ".join(f"{len(rows)} **{verdict}**" for verdict, rows in by_verdict(table).items())
    ids = {str(claim).rstrip("ab") for claim in table.index}  # C3a and C3b are parts of one claim
    return f"{len(ids)} claims of the paper, in {len(table)} comparisons: {each}."


def in_words(study: Study, table: pd.DataFrame) -> str:
    """The table of `answers` as a Markdown list: each verdict with its claims and the results of one network."""
    lines = []
    for verdict, rows in by_verdict(table).items():
        each, said = [], set()
        for claim, row in rows.iterrows():
            part = row["title"].removeprefix(f"{claim} {study.claims[claim]['claim']}")
            name = f"{claim}{part}" if claim in said else row["title"]
            said.add(claim)
            each.append(f"  - {name}{_result(row)}{_remark(row['verdict'], verdict)}")
        lines += [f"- **{verdict}**", *each]
    return "\n".join(lines)


def _result(row: pd.Series) -> str:
    """What was measured, its value, and the amount that is claimed of it; nothing where it is not run."""
    if row["result"] == "–":
        return ""
    quantity, _, _ = row["metric"].partition(", ")
    words = {"arithmetic": "", "AUROC": "AUROC difference "}.get(quantity, f"{quantity} ")
    asked = re.search(r"at least [\d.]+", row["compared"])
    return f": {words}{row['result']}{f', {asked[0]} is claimed' if asked else ''}"


def _remark(said: str, verdict: str) -> str:
    """What comes after the first words of a verdict, such as the dose that is missing."""
    remark = re.sub(r"^\W+|\W+$", "", said.removeprefix(verdict))
    return f" ({remark})" if remark else ""


def write_summary(study: Study, folder: Path) -> None:
    """Write what the first page includes: ``folder/finding.md`` and ``folder/verdicts.md``, with their figures.

    Where the experiment of the finding is not run, one line says so; the figure of claims says which are not run.
    """
    folder.mkdir(parents=True)
    try:
        table = measured(study)
        figure = _figure(picture(study, table), folder / "study.svg", "fig-summary", caption(study, table))
        text = f"{finding(study, table)}\n{figure}"
    except NotRunYet:
        text = NO_FINDING
    (folder / "finding.md").write_text(text, encoding="utf-8")
    lines = answers(study)
    use_style()
    figure = _figure(claims(lines), folder / "claims.svg", "fig-claims", CAPTION_OF_CLAIMS)
    (folder / "verdicts.md").write_text(f"{tally(lines)}\n\n{figure}", encoding="utf-8")


def _figure(figure: Figure, path: Path, name: str, text: str) -> str:
    """Save a figure; as Markdown, with its caption and its alt text."""
    figure.savefig(path, metadata={"Date": None})
    alt = figure.alt  # type: ignore[attr-defined]  # set by figures.style.described
    return f":::{{figure}} {path.parent.name}/{path.name}\n:name: {name}\n:alt: {alt}\n\n{text}\n:::\n"


if __name__ == "__main__":
    whole = Study("study", "results")
    picture(whole, measured(whole)).savefig(TARGET, metadata={"Software": None})
    print(TARGET)
