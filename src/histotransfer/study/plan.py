"""A study declared in a TOML file: its arms, folds and seeds, and which of its runs are finished.

For example::

    experiment = "primary"            # its folder in results/
    answers = ["C2", "C3a"]           # the claims that it tests
    profile = "lite"
    folds = [0, 1, 2, 3, 4]
    seeds = [0, 1, 2]
    minutes = 3                       # expected per run on one thread: the budget
    [settings]                        # of every arm, as in `histotransfer ladder --set`
    threads = 1
    [arms.plain]                      # what sets an arm apart
    se_positions = []
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from histotransfer.config import Baseline, LadderConfig, Method, ProfileName, ladder_config, validated
from histotransfer.errors import HistotransferError
from histotransfer.records import read_run

OF_A_RUN = {"imagenet", "chosen"}  # what a record's `config` holds beside the settings
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Plan(BaseModel):
    """An experiment: every arm is run for every fold and seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: Name = Field(description="name of its folder: small letters, digits and -")
    answers: tuple[str, ...] = Field(description="the claims and questions it is for")
    profile: ProfileName = Field(description="phantom, lite or paper")
    folds: tuple[int, ...] = Field(min_length=1, description="test folds, numbered from 0")
    seeds: tuple[int, ...] = Field(min_length=1, description="each changes folds, initialisation and order")
    minutes: float = Field(gt=0, description="expected of one run on one thread")
    settings: dict[str, Any] = Field(default_factory=dict, description="of every arm, as for `ladder --set`")
    arms: dict[Name, dict[str, Any]] = Field(default_factory=dict, description="name to what sets it apart")
    baselines: tuple[Baseline, ...] = Field(
        default=(), description="baselines run on the same splits, under their own names"
    )


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan: its name is ``<arm>-s<seed>-f<fold>``."""

    name: str
    arm: str
    config: LadderConfig
    method: Method = "ladder"


def read_plan(path: str | Path) -> Plan:
    """Read and check a plan.

    Raises:
        HistotransferError: the file is missing or not TOML, or holds an invalid name or value, also in an arm.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise HistotransferError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HistotransferError(f"{path}: not TOML ({error})") from error
    try:
        plan = validated(Plan, values)
        planned_runs(plan)
    except HistotransferError as error:
        raise HistotransferError(f"{path}: {error}") from error
    return plan


def planned_runs(plan: Plan) -> list[PlannedRun]:
    """Every run: all arms of one fold and seed, then those of the next, so that a study stopped early has equal arms.

    Raises:
        HistotransferError: a setting is unknown or invalid; the message names the arm.
    """
    arms: dict[str, dict[str, Any]] = {name: {} for name in plan.baselines} | plan.arms
    methods: dict[str, Method] = {name: name for name in plan.baselines}
    runs = []
    for fold in plan.folds:
        for seed in plan.seeds:
            for arm, changes in arms.items():
                try:
                    config = ladder_config(plan.profile, {**plan.settings, **changes, "fold": fold, "seed": seed})
                except HistotransferError as error:
                    raise HistotransferError(f"arm {arm}: {error}") from error
                runs.append(PlannedRun(f"{arm}-s{seed}-f{fold}", arm, config, methods.get(arm, "ladder")))
    return runs


def is_finished(run: PlannedRun, folder: Path) -> bool:
    """Whether the run's record is complete and has these settings.

    A record that is older than a setting counts as made with that setting's default.
    """
    try:
        recorded = read_run(folder / run.name).record["config"]
        known = {name: value for name, value in recorded.items() if name not in OF_A_RUN}
        return validated(LadderConfig, {**known, "weights": run.config.weights}) == run.config
    except HistotransferError:
        return False
