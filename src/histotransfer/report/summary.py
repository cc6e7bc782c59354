"""The study's results on the README and the landing page: one figure and the table of verdicts, from the records.

``make picture`` draws the README's figure; the book draws its own when it is built.
"""

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from histotransfer.evaluation.comparisons import verdict
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.metrics import ALL, MEAN, MEAN_OVER, metric_name
from histotransfer.figures import forest, use_style
from histotransfer.records import Run
from histotransfer.report.answers import answers
from histotransfer.report.rehearsal import rehearsal_patients
from histotransfer.report.study import NotRunYet, Study
from histotransfer.report.tables import gap, gap_within_folds, with_intervals, without
from histotransfer.report.verdicts import FROM_SCRATCH, PROPOSED, judge_convergence

TARGET = Path("book/_static/study.png")
FIGURE = "study.png"
ENDS = ["value", "low", "high"]
AS_SCANNED = (  # beside C1: experiment, arm, and what it is
    ("colour", "none", "a network without the lung step (eight epochs, one seed)"),
    ("final", "final", "the recipe of our own, below"),
)
CAPTION = (
    "The same recipe on the same real images, split in two ways. Split by patient its accuracy is {patient}, split by"
    " image {image}: mean over 40x, 100x and 200x, {images} images, {patients} patients (benign + malignant), 95 %"
    " intervals clustered by patient. SE-DenseNet from ImageNet, without the lung step, head and block 4 trained; one"
    " network for each magnification and fold, one seed, colours normalised by Macenko's method. Dashed: the paper's"
    " claim, whose split is not stated. Paired, by image minus by patient: {gap}; split by image, networks had more"
    " training images at 40x and 100x (chapter Leakage). Grey: what always answering with the larger class would score."
    " The network of C1 in the table below is another: it has learned lung tissue, then 40x, 100x and 200x together,"
    " and its answers are averaged over three seeds."
)


def measured(study: Study) -> pd.DataFrame:
    """The numbers of the figure: the trained network split by patient and by image, in the form of `with_intervals`."""
    by_patient, by_image = _split_both_ways(study)
    table = with_intervals({"split by patient": by_patient, "split by image": by_image})
    return table[table["magnification"] != ALL]


def _split_both_ways(study: Study) -> tuple[Run, Run]:
    return study.within("leakage-trained", "patient"), study.within("leakage-trained", "image")


def larger_class(study: Study) -> pd.Series:
    """Share of the larger class among the images of `measured`, by magnification, and the mean of these shares."""
    images = study.within("leakage-trained", "patient").predictions
    shares = images.groupby("magnification")["truth"].agg(lambda truth: truth.value_counts(normalize=True).max())
    return pd.concat([shares.rename(str), pd.Series({MEAN: shares.mean()})])


def picture(study: Study, table: pd.DataFrame) -> Figure:
    """Accuracy at each magnification with both splits (`measured`), beside the claim and the larger class."""
    use_style()
    return forest(table, "accuracy", study.claims["C1"]["threshold"], larger_class(study))


def caption(study: Study, table: pd.DataFrame) -> str:
    """`CAPTION` with its numbers: those of the table, and the difference of its two splits."""
    means = table.query("metric == 'accuracy' and magnification == 'mean'").set_index("run")
    rows = {split: means.loc[f"split by {split}", ENDS] for split in ("patient", "image")}
    about = means.iloc[0][["images", "patients"]]
    rows["gap"] = _of_means(gap(*_split_both_ways(study), metrics=["accuracy"])).loc["accuracy", ENDS]
    return CAPTION.format(**about, **{name: number(*row) for name, row in rows.items()})


def tally(table: pd.DataFrame) -> str:
    """A sentence that counts the verdicts in the table of `answers`."""
    counts = table["verdict"].str.split(r"[;,] ").str[0].value_counts()
    each = ", ".join(f"{count} **{verdict}**" for verdict, count in counts.items())
    return (
        f"**In short.** Of the {len(table)} lines of {{numref}}`tab-summary`: {each}. Undecided means that what was"
        " run, on these patients, does not tell; it does not mean that there is nothing.\n"
    )


def verdicts(study: Study, table: pd.DataFrame) -> str:
    """The table of `answers` in Markdown, one line per claim or part; what a claim's lines share is written once."""
    lines = ["| claim | verdict | result | what was compared | n |", "|---|---|---|---|---|"]
    last_compared: dict[str, str] = {}
    for claim, row in table.iterrows():
        text, compared = f"{claim}: {row['claim']}", f"{row['compared']} ({row['metric']})"
        if claim in last_compared:  # a phone shows this cell only, so it must differ from the one above
            text = claim + (row["claim"].removeprefix(study.claims[claim]["claim"]) or f", {row['compared']}")
        shown = "as above" if last_compared.get(claim) == compared else compared
        last_compared[claim] = compared
        cells = (text, f"**{row['verdict']}**", row["result"], shown, row["n"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def bar(study: Study) -> str:
    """The proposed network minus the frozen probe, in a sentence."""
    return (
        f"**The bar.** {PROPOSED} minus a logistic regression on the features of an ImageNet network that never saw"
        " tissue, same splits and colours, mean over 40x, 100x and 200x:"
        f" {_minus(study.pooled('primary', 'frozen-probe'), study.pooled('primary', PROPOSED))}.\n"
    )


def recipe(study: Study) -> str:
    """The final recipe minus the frozen probe, in a sentence."""
    probe, final = (study.pooled("final", arm) for arm in ("frozen-probe", "final"))
    chosen_on = rehearsal_patients(study)
    unseen_probe, unseen_final = (without(run, chosen_on) for run in (probe, final))
    return (
        "**Beyond the paper.** A recipe of our own, chosen on validation patients and then tested once, minus such a"
        " regression, colours as scanned, mean over 40x, 100x and 200x:"
        f" {_minus(probe, final, ('auroc', 'accuracy', 'log_loss'))}; of log-loss more is worse. Within folds AUROC"
        f" differs by {_minus_probe_within_folds(study)}. Without the patients that had a part in the choice:"
        f" {_minus(unseen_probe, unseen_final, ('auroc',))},"
        f" within folds {_minus_probe_within_folds(study, chosen_on)}. Minus a"
        " regression that could be regularised more freely:"
        f" {_minus(study.pooled('wide-probe', 'wide-probe'), final)}. Brackets are missing where so few patients give"
        " no interval. Chapter {doc}`../notebooks/10_strategies` says how the recipe was chosen; a network trained"
        " by it is what `histotransfer predict` uses.\n"
    )


def _minus_probe_within_folds(study: Study, left_out: Collection[str] = ()) -> str:
    final, probe = ([without(run, left_out) for run in study.runs("final", arm)] for arm in ("final", "frozen-probe"))
    return number(*_of_means(gap_within_folds([(final, probe)], "final minus probe")).loc["auroc_within_folds", ENDS])


def _minus(reference: Run, other: Run, metrics: Sequence[str] = ("auroc", "accuracy")) -> str:
    means = _of_means(gap(reference, other, metrics=metrics))
    differences = (f"{metric_name(metric)} {number(*means.loc[metric, ENDS])}" for metric in metrics)
    about = means.iloc[0]
    return f"{', '.join(differences)} ({about['images']} images, {about['patients']} patients)"


def _of_means(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["magnification"] == MEAN].set_index("metric")


def colours(study: Study) -> str:
    """The verdict of the rule on C1 where colours are as scanned, in a sentence."""
    threshold, clauses = study.claims["C1"]["threshold"], []
    for experiment, arm, name in AS_SCANNED:
        table = with_intervals({name: study.pooled(experiment, arm)}).query("metric == 'accuracy'")
        rows = table.set_index("magnification").loc[[str(at) for at in MEAN_OVER]]
        each = (f"{at}x {verdict(row['low'], row['high'], threshold)}" for at, row in rows.iterrows())
        clauses.append(f"{name}: {', '.join(each)}")
    return (
        "**C1 with care.** The paper does not say how it normalised colours; Macenko's method is our choice. By the"
        f" same rule on colours as scanned, {'; '.join(clauses)}. {{doc}}`../notebooks/02_normalization`.\n"
    )


def attention(study: Study) -> str:
    """How far the gates behind C2 were from 1, where they change nothing, in a sentence.

    Raises:
        NotRunYet: there is no record of the gates.
    """
    path = study.results / "gates" / "gates.csv"
    if not path.is_file():
        raise NotRunYet(f"{path}: not there yet; `histotransfer experiment gates` makes it")
    furthest = (pd.read_csv(path)[["lowest", "highest"]] - 1).abs().max(axis=None)
    return (
        "**C2 with care.** A gate of 1 changes nothing; in the run whose gates were read none is further from 1 than"
        f" {furthest:.1g}. The nearer to 1, the less C2 says of attention, and C4b, whose whole has the same gates:"
        " {doc}`../notebooks/03_se_densenet`.\n"
    )


def convergence(study: Study) -> str:
    """In how many runs of each arm of C5 all validation images are of one class, in a sentence; empty if in none.

    Raises:
        NotRunYet: runs of the experiment are missing.
    """
    table = judge_convergence(study)
    if "one_class" not in table:
        raise NotRunYet("scratch: not all of its runs are there yet")
    alike, runs = table.loc[FROM_SCRATCH, ["one_class", "runs"]]
    if not alike:
        return ""
    return (
        f"**C5 with care.** In {alike} of {runs} runs of each arm all validation images are of one class: their"
        " log-loss falls for a network that calls everything so. {doc}`../notebooks/12_verdict`.\n"
    )


def write_summary(study: Study, folder: Path) -> None:
    """Write what a page includes: ``folder/short.md`` (tally, figure) and ``folder/summary.md`` (table, remarks).

    A figure or remark whose experiment is not run is left out; tally and table say which claims are not run.
    """
    folder.mkdir(parents=True)
    table = answers(study)
    short = tally(table)
    with contextlib.suppress(NotRunYet):
        accuracies = measured(study)
        figure = picture(study, accuracies)
        figure.savefig(folder / FIGURE, metadata={"Software": None})
        alt = figure.alt  # type: ignore[attr-defined]  # set by figures.style.described
        head = f":::{{figure}} {folder.name}/{FIGURE}\n:name: fig-summary\n:alt: {alt}"
        short += f"\nWhat the way of splitting alone is worth: {{numref}}`fig-summary`.\n\n{head}\n\n"
        short += f"{caption(study, accuracies)}\n:::\n"
    (folder / "short.md").write_text(short, encoding="utf-8")
    text = f":::{{table}} What the study says of each claim.\n:name: tab-summary\n\n{verdicts(study, table)}\n:::\n"
    for remark in (colours, attention, convergence, bar, recipe):
        with contextlib.suppress(NotRunYet):
            text += f"\n{remark(study)}"
    (folder / "summary.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    whole = Study("study", "results")
    picture(whole, measured(whole)).savefig(TARGET, metadata={"Software": None})
    print(TARGET)
