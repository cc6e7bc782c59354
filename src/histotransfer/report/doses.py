"""Whether the treatments of an arm were given: the doses in its records against the thresholds of the rule."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histotransfer.records import Run

Thresholds = Mapping[str, Mapping[str, float]]
AT_MOST = ("training_log_loss", "cka")  # every other threshold is a least dose


def read_rule(study: Path) -> dict[str, Any]:
    """`claims.toml` whole: `rule`, `dose`, `claims` and the rest."""
    return tomllib.loads((study / "claims.toml").read_text(encoding="utf-8"))


def treatments_of(config: Mapping[str, Any]) -> set[str]:
    """The treatments that a run has, from its settings: names of `[dose]`."""
    has = {
        "gates": bool(config["se_positions"]),
        "lung": config["source"] == "lc25000",
        "colours": config["normaliser"] != "none",
        "views": config["augmentation"] != "none",
        "fine-tuning": True,
    }
    return {name for name, present in has.items() if present}


def measured(dose: Mapping[str, Any], treatment: str) -> dict[str, float]:
    """What a record says of a treatment, under the names of its thresholds; NaN for what was not measured."""
    found = {
        "gates": dose.get("gates", {}),
        "lung": dose.get("source", {}),
        "colours": dose.get("colours", {}),
        "views": dose.get("views", {}),
        "fine-tuning": {**dose.get("moved", {}), "training_log_loss": dose.get("training_log_loss")},
    }[treatment]
    return {name: np.nan if value is None else value for name, value in found.items() if not isinstance(value, dict)}


def is_short(run: Run, treatment: str, thresholds: Mapping[str, float]) -> bool:
    """Whether a run was given less of a treatment than the rule asks; what was not measured is short."""
    dose = measured(run.record["dose"], treatment)
    for name, threshold in thresholds.items():
        value = dose.get(name, np.nan)
        if not (value <= threshold if name in AT_MOST else value >= threshold):
            return True
    return False


def not_given(arms: Sequence[Sequence[Run]], treatments: Sequence[str], rule: Mapping[str, Any]) -> list[str]:
    """The treatments that some arm with them was not given: short in more than the rule's share of its runs.

    Args:
        arms: the runs of each arm that is compared.
        treatments: those that matter for a claim.
        rule: as `read_rule` returns it.
    """
    missing = []
    for treatment in treatments:
        thresholds = rule["dose"][treatment]
        for runs in arms:
            treated = [run for run in runs if treatment in treatments_of(run.record["config"])]
            if treated and np.mean([is_short(run, treatment, thresholds) for run in treated]) > rule["rule"]["short"]:
                missing.append(treatment)
                break
    return missing


def typical(arms: Sequence[Sequence[Run]], treatments: Sequence[str]) -> dict[str, dict[str, float]]:
    """The median dose of each treatment over all runs that have it, by the names of its measures."""
    doses: dict[str, dict[str, float]] = {}
    for treatment in treatments:
        treated = [run for runs in arms for run in runs if treatment in treatments_of(run.record["config"])]
        each = [measured(run.record["dose"], treatment) for run in treated]
        if each:
            doses[treatment] = {name: float(np.median([dose[name] for dose in each])) for name in each[0]}
    return doses


def by_run(arms: Mapping[str, Sequence[Run]], treatments: Sequence[str], rule: Mapping[str, Any]) -> pd.DataFrame:
    """What every run was given of each treatment that it has, beside what the rule asks.

    Args:
        arms: the runs of each arm, by its name.
        treatments: names of `[dose]` in the rule.
        rule: as `read_rule` returns it.

    Returns:
        One row per run and threshold: `arm`, `treatment`, `measure`, `value`, `threshold`, and `at_most`: whether the
        threshold is a most, not a least.
    """
    return pd.DataFrame(
        {
            "arm": arm,
            "treatment": treatment,
            "measure": measure,
            "value": measured(run.record["dose"], treatment).get(measure, np.nan),
            "threshold": threshold,
            "at_most": measure in AT_MOST,
        }
        for treatment in treatments
        for measure, threshold in rule["dose"][treatment].items()
        for arm, runs in arms.items()
        for run in runs
        if treatment in treatments_of(run.record["config"])
    )


def in_words(doses: Mapping[str, Mapping[str, float]]) -> str:
    """Median doses in a few words, for a table."""
    words = {
        "gates": "gates {distance:.2f} from 1, spread {spread:.3f}",
        "fine-tuning": "block 4 moved by {block4:.0%}, block 3 by {block3:.0%}",
        "lung": "LC25000 accuracy {accuracy:.2f}, CKA {cka:.2f}",
        "colours": "{changed:.0%} of tiles changed, by {distance:.0f} in CIELAB",
        "views": "{drawn:.1f} of {of:.0f} views",
    }
    return "; ".join(words[name].format(**dose) for name, dose in doses.items())


def asked(claim: Mapping[str, Any], rule: Mapping[str, Any]) -> dict[str, Any]:
    """The rule as it applies to a claim: one that compares arms at a fixed budget is not asked to fit the images."""
    if "training_log_loss" not in claim.get("not_asked", ()):
        return dict(rule)
    tuning = {name: least for name, least in rule["dose"]["fine-tuning"].items() if name != "training_log_loss"}
    return {**rule, "dose": {**rule["dose"], "fine-tuning": tuning}}
