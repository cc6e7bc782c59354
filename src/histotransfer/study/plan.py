"""A study declared in a TOML file: its arms, folds and seeds, and which of its runs are finished.

For example::

    experiment = "primary"            # its folder in results/
    answers = ["C2", "C3a"]           # the claims that it tests
    profile = "lite"
    folds = [0, 1, 2, 3, 4]
    seeds = [0, 1, 2]
    minutes = 3                       # expected per run on one thread: the budget
    recipe = "recipe.toml"            # settings that several plans share: a file beside this one
    [settings]                        # of every arm, as in `histotransfer ladder --set`; they go before the recipe's
    external = true
    [arms.plain]                      # what sets an arm apart
    se_positions = []
"""

import tomllib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from histotransfer.config import Baseline, LadderConfig, Method, ProfileName, ladder_config, validated
from histotransfer.errors import HistotransferError
from histotransfer.records import read_run

OF_A_RUN = {"imagenet", "chosen"}  # what a record's `config` holds beside the settings
QUICK_PIXELS, QUICK_EPOCHS = 48, 4
REFERENCE_IMAGES = 1361  # of BreakHis, for which `minutes` is given
MOST_RUNS = 10_000  # more would take years: it is a slip of the pen
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,79}$")]


def _different(values: tuple[int, ...]) -> tuple[int, ...]:
    """Two runs of one name would write one folder."""
    if len(set(values)) < len(values):
        raise ValueError("a number is there twice")
    return values


Numbers = Annotated[tuple[int, ...], Field(min_length=1, max_length=1000), AfterValidator(_different)]


class Plan(BaseModel):
    """An experiment: every arm is run for every fold and seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: Name = Field(description="name of its folder: small letters, digits and -")
    answers: tuple[str, ...] = Field(description="the claims and questions it is for")
    profile: ProfileName = Field(description="phantom, lite or paper")
    folds: Numbers = Field(description="test folds, numbered from 0")
    seeds: Numbers = Field(description="each changes folds, initialisation and order")
    minutes: FiniteFloat = Field(gt=0, description="expected of one run on one core, with `REFERENCE_IMAGES` images")
    validation_offsets: Numbers = Field(default=(1,), description="how many folds after the test part validation comes")
    recipe: str = Field(default="", description="a file beside the plan with settings that several plans share")
    settings: dict[str, Any] = Field(default_factory=dict, description="of every arm, as for `ladder --set`")
    arms: dict[Name, dict[str, Any]] = Field(default_factory=dict, description="name to what sets it apart")
    baselines: tuple[Baseline, ...] = Field(
        default=(), description="baselines run on the same splits, under their own names"
    )
    overrides: dict[str, Any] = Field(default_factory=dict, description="settings that go before those of the arms")
    quick: bool = Field(
        default=False, description="a rehearsal of the machinery: one seed, small pictures, one epoch a stage"
    )


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan: its name is ``<arm>-s<seed>-f<fold>``, and ``-v<offset>`` where validation is not the next."""

    name: str
    arm: str
    config: LadderConfig
    method: Method = "ladder"


def read_plan(path: str | Path) -> Plan:
    """Read and check a plan.

    Raises:
        HistotransferError: the file is missing or not TOML, or holds an invalid name or value, also in an arm.
    """
    values = _read_toml(Path(path))
    try:
        plan = validated(Plan, values)
        if plan.recipe:
            shared = _read_toml(Path(path).parent / plan.recipe)
            plan = plan.model_copy(update={"settings": shared | plan.settings})
        planned_runs(plan)
    except HistotransferError as error:
        raise HistotransferError(f"{path}: {error}") from error
    return plan


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HistotransferError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # of TOML, of its encoding, of a number; nested too deep
        raise HistotransferError(f"{path}: not TOML ({error})") from error


def planned_runs(plan: Plan) -> list[PlannedRun]:
    """Every run: all arms of one fold and seed, then those of the next, so that a study stopped early has equal arms.

    Raises:
        HistotransferError: a setting is unknown or invalid (the message names the arm); or too many runs.
    """
    arms: dict[str, dict[str, Any]] = {name: {} for name in plan.baselines} | plan.arms
    methods: dict[str, Method] = {name: name for name in plan.baselines}
    runs = []
    seeds = plan.seeds[:1] if plan.quick else plan.seeds
    count = len(arms) * len(plan.folds) * len(seeds) * len(plan.validation_offsets)
    if count > MOST_RUNS:
        raise HistotransferError(f"{count} runs are planned, at most {MOST_RUNS} are taken; split the plan")
    for fold, seed, offset in product(plan.folds, seeds, plan.validation_offsets):
        of_run = {"fold": fold, "seed": seed, "validation_offset": offset}
        for arm, changes in arms.items():
            try:
                config = ladder_config(plan.profile, plan.settings | changes | of_run | plan.overrides)
            except HistotransferError as error:
                raise HistotransferError(f"arm {arm}: {error}") from error
            name = f"{arm}-s{seed}-f{fold}" + (f"-v{offset}" if offset > 1 else "")
            runs.append(PlannedRun(name, arm, _shortened(config) if plan.quick else config, methods.get(arm, "ladder")))
    return runs


def _shortened(config: LadderConfig) -> LadderConfig:
    """The same run in seconds: its numbers mean nothing."""
    schedules = {
        name: tuple((stage, 1) for stage, _ in getattr(config, name))
        for name in ("lc25000_schedule", "breakhis_schedule")
    }
    if len(config.breakhis_schedule) == 1:  # a curve has three points at least
        schedules["breakhis_schedule"] = ((config.breakhis_schedule[0][0], QUICK_EPOCHS),)
    return config.model_copy(update={"size": QUICK_PIXELS, "lc25000_copies": 1, **schedules})


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
