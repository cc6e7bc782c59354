"""A study declared in a TOML file: arms, folds and seeds; and which of its runs are still to be done.

For example::

    experiment = "primary"            # its folder in results/
    answers = ["C2", "C3a"]           # claims it is for
    profile = "lite"
    folds = [0, 1, 2, 3, 4]
    seeds = [0, 1, 2]
    minutes = 3                       # expected, a run, on one thread: the budget
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
        HistotransferError: missing, not TOML, or a name or value that is refused; also in an arm's settings.
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
    """Every run, the arms of a fold and seed one after the other: a study that is cut short is cut evenly.

    Raises:
        HistotransferError: a setting that is unknown or refused; the arm is named.
    """
    runs = []
    for fold in plan.folds:
        for seed in plan.seeds:
            arms = {name: {} for name in plan.baselines} | plan.arms
            for arm, own in arms.items():
                try:
                    config = ladder_config(plan.profile, {**plan.settings, **own, "fold": fold, "seed": seed})
                except HistotransferError as error:
                    raise HistotransferError(f"arm {arm}: {error}") from error
                method = arm if arm in plan.baselines else "ladder"
                runs.append(PlannedRun(f"{arm}-s{seed}-f{fold}", arm, config, method))
    return runs


def is_finished(run: PlannedRun, folder: Path) -> bool:
    """Whether its record is there, whole, and of these settings.

    A record made before a setting existed was made as that setting's default says.
    """
    try:
        recorded = read_run(folder / run.name).record["config"]
        known = {name: value for name, value in recorded.items() if name not in OF_A_RUN}
        return validated(LadderConfig, {**known, "weights": run.config.weights}) == run.config
    except HistotransferError:
        return False
