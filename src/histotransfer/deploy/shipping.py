"""The network that ships: the recipe that the study chose, trained on every patient, with the card of ONE network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from histotransfer.config import LadderConfig
from histotransfer.deploy.measured import METRICS, PATIENT_METRICS, PROBABILITIES, PROBE, markdown, there
from histotransfer.deploy.release import model_card
from histotransfer.evaluation.familiarity import NEIGHBOURS, Familiarity
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.intervals import all_metrics
from histotransfer.evaluation.metrics import MALIGNANT, MEAN_OVER, metric_name, predicted
from histotransfer.evaluation.sets import COVERAGE
from histotransfer.files import write_text
from histotransfer.models.se_densenet import parameter_count
from histotransfer.models.weights import save_model
from histotransfer.report.coverage_of_sets import PATIENT, PICTURE, calibrated_sets, coverage_of_sets
from histotransfer.report.selection import EXPERIMENT, Selection, select
from histotransfer.report.study import Study
from histotransfer.report.tables import formatted, of_single_networks
from histotransfer.report.views import views_averaged
from histotransfer.study.plan import planned_runs
from histotransfer.study.runner import features_of, train_unrecorded
from histotransfer.transfer.stages import Report

SHIPPED = "final.safetensors"
SPREAD = ("accuracy", "auroc")  # shown from network to network


def ship(study: Study, data: str | Path, out: str | Path, report: Report = print) -> list[Path]:
    """Train the network that ships on every patient, by the recipe that the study chose; write it with its card.

    Its logits are divided by the temperature that was best out of fold: the classifier's weights hold that. Beside it
    are the features of its training pictures; from which distance on a picture is unlike them is measured on pictures
    of held-out patients, by a network of the recipe for each fold. The thresholds of sets come from the selection's
    records, and the number of views that `predict` averages from those of `report.views`. The card's metrics are
    those of single networks of the recipe, out of fold: no patient is left to test the network itself on.

    Args:
        study: plans and records; the selection and the plan of views must be finished.
        data: folder of the data sets.
        out: folder for `SHIPPED` and its card; created if missing.
        report: called with one line per step.

    Returns:
        The files written.

    Raises:
        NotRunYet: the selection or the plan of views is not finished; no network is trained.
        HistotransferError: the data cannot be used.
    """
    out, chosen = Path(out), select(study)
    run = next(run for run in planned_runs(study.plan(EXPERIMENT)) if run.arm == chosen.ships)
    averaged = views_averaged(study, run.config.augmentation)
    report(f"recipe: {chosen.ships}; temperature {chosen.temperature:.2f}; views averaged: {averaged or 'all'}")
    sections, elsewhere = _of_the_recipe(chosen), _elsewhere(study, chosen.ships)
    config = run.config.model_copy(update={"split": "none", "fold": 0, "external": False})
    model, task, description = train_unrecorded(config, data, out, report=report)
    held_out = held_out_distances(run.config, data, out, report)["distance"].to_numpy()
    familiar = Familiarity.fit(features_of(model, task, "train")).with_threshold(held_out)
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.div_(chosen.temperature)
    description |= {"temperature": round(chosen.temperature, 4), "recipe": chosen.ships}
    description["views"]["averaged"] = averaged
    description |= {"coverage": COVERAGE, "sets": calibrated_sets(chosen.calibrated())}
    out.mkdir(parents=True, exist_ok=True)
    path = out / SHIPPED
    save_model(model.half(), path, description, familiar.tensors())
    sections += [_of_the_sets(chosen), _of_familiarity(familiar), elsewhere.section]
    text = model_card(path.name, path, description, parameter_count(model), sections, elsewhere.warning)
    write_text(card := path.with_name(f"{path.name}.md"), text)
    return [path, card]


def held_out_distances(recipe: LadderConfig, data: str | Path, out: Path, report: Report) -> pd.DataFrame:
    """How unlike the training pictures those of held-out patients are, by a network of a recipe for each fold.

    Args:
        recipe: its settings, split by patient; the fold is replaced.
        data: folder of the data sets.
        out: folder for the checkpoint of an unfinished training.
        report: called with one line per step.

    Returns:
        One row per picture: `path`, `group` (its patient), `fold`, `distance`.
    """
    tables = []
    for fold in range(recipe.folds):
        config = recipe.model_copy(update={"fold": fold, "external": False})
        network, split, _ = train_unrecorded(config, data, out, report=report)
        fitted = Familiarity.fit(features_of(network, split, "train"))
        of_fold = split.table.iloc[split.rows("test")][["path", "group"]]
        distances = fitted.distances(features_of(network, split, "test"))
        tables.append(of_fold.assign(fold=fold, distance=distances))
    return pd.concat(tables, ignore_index=True)


def _of_the_sets(chosen: Selection) -> str:
    """A section of the card: how often a set holds the truth, on folds left out of its calibration."""
    tables = {level: coverage_of_sets(chosen.calibrated(), level) for level in (PICTURE, PATIENT)}
    rows = [
        f"| {level} | {name} | {number(row.covered, row.low, row.high)}"
        f" | {number(row.cannot_tell, row.cannot_tell_low, row.cannot_tell_high)} | {row.patients:.0f} |"
        for level, table in tables.items()
        for name, row in table.iterrows()
    ]
    return (
        "## When it cannot tell\n\n"
        f"The column `set` (a conformal set) is meant to contain the true class for {COVERAGE:.0%} of patients like"
        " those of BreakHis, in their mix of classes; for one class alone it may be less. That is for a picture of each"
        " patient, or for the mean of a patient's pictures at one magnification; a mean over several magnifications was"
        " not measured. Its limits come from networks trained on three fifths of the patients, not from the one that"
        " ships. Measured on folds left out of the calibration, with 95 % intervals by patient:"
        "\n\n| of a | class | contains the true class | cannot tell | patients |\n| --- | --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


def _of_familiarity(familiar: Familiarity) -> str:
    return (
        "## Unlike the training pictures\n\nA picture is noted as unlike when its features after the first transition"
        f" are further from those of the {NEIGHBOURS} nearest training pictures than {1 - familiar.false_alarms:.0%} of"
        " the pictures of held-out patients were, in networks of this recipe that never saw them.\n"
    )


def _of_the_recipe(chosen: Selection) -> list[str]:
    """Sections of the card: what one network of the chosen recipe is worth, out of fold."""
    folds = ", ".join(f"{arm} for fold {fold}" for fold, arm in chosen.chosen.items())
    raw, calibrated = (of_single_networks("network", tables) for tables in (chosen.networks, chosen.calibrated()))
    bar = of_single_networks(PROBE, chosen.bar)
    beside = pd.concat([raw, bar], ignore_index=True)
    both = pd.concat([raw.assign(run="as trained"), calibrated.assign(run="with its temperature")], ignore_index=True)
    return [
        "## One network of the chosen recipes, out of fold\n\n"
        f"For each test fold the recipe was chosen anew, by networks that never saw that fold ({folds}). Trained on"
        f" three fifths of the patients; mean of {len(chosen.networks)} networks, each alone; 95 % intervals, clustered"
        f" by patient. From network to network: {_spread(chosen)}. Beside it the frozen probe, a regression on"
        f" ImageNet's features ({PROBE}); always answering with the larger class would be right for"
        f" {_larger_class(chosen):.2f} of images (mean). Records: `results/{EXPERIMENT}`.\n\n"
        f"{markdown(formatted(beside, there(raw, METRICS)))}\n",
        "## The same by patient\n\nThe mean logit of a patient's images.\n\n"
        f"{markdown(formatted(raw, there(raw, PATIENT_METRICS)))}\n",
        "## Its probabilities\n\nThe temperature of each fold was chosen on other patients.\n\n"
        f"{markdown(formatted(both, there(both, PROBABILITIES)))}\n",
    ]


def _larger_class(chosen: Selection) -> float:
    """Share of the larger class, mean over magnifications."""
    shares = chosen.networks[0].groupby("magnification")["truth"].value_counts(normalize=True)
    return float(shares.groupby("magnification").max().loc[list(MEAN_OVER)].mean())


def _spread(chosen: Selection) -> str:
    """The lowest and the highest value of single networks, mean over magnifications."""
    each = pd.DataFrame([all_metrics(table, "magnification", SPREAD) for table in chosen.networks], dtype=float)
    return ", ".join(f"{metric_name(name)} {each[name].min():.2f} to {each[name].max():.2f}" for name in SPREAD)


@dataclass(frozen=True)
class _Elsewhere:
    """What a card says of slides from elsewhere: in its first lines, and in a section."""

    warning: str
    section: str


def _elsewhere(study: Study, arm: str) -> _Elsewhere:
    runs = study.runs(EXPERIMENT, arm)
    tables = [run.predictions[run.predictions["part"] == "ucsb"].reset_index(drop=True) for run in runs]
    if not len(tables[0]):
        return _Elsewhere("", "## Slides from elsewhere\n\nNot tested.\n")
    called = np.mean([(predicted(table) == MALIGNANT).mean() for table in tables])
    truly = (tables[0]["truth"] == MALIGNANT).mean()
    whole = of_single_networks("network", tables)
    return _Elsewhere(
        f"**Not for slides from elsewhere.** Of {len(tables[0])} fields of UCSB {truly:.0%} are malignant; networks of"
        f" this recipe called {called:.0%} malignant.",
        "## Slides from elsewhere\n\n"
        f"UCSB, never used for a choice; mean of {len(tables)} networks, each alone; 95 % intervals, clustered by"
        " slide; a slide with fields of both classes counts in each.\n\n"
        f"{markdown(formatted(whole, there(whole, METRICS), unit='slides'))}\n",
    )
