"""The records of the study, arm by arm: the plans say which runs belong together.

This module only puts runs together; `verdicts` compares them with the claims.
"""

import tomllib
from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.metrics import MEAN_OVER
from histotransfer.evaluation.pooling import pool
from histotransfer.records import Run, read_run
from histotransfer.study.plan import Plan, planned_runs, read_plan


class NotRunYet(HistotransferError):
    """Runs of a plan are missing (not raised for damaged records)."""


def if_run(table: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table that a function makes; or, where runs are missing, one line that says which."""
    try:
        return table()
    except NotRunYet as missing:
        return pd.DataFrame({"not run yet": [str(missing)]}, index=[""])


def read_claims(study: str | Path) -> dict[str, dict]:
    """The claims of `claims.toml`, by id.

    Raises:
        HistotransferError: the file is missing, or not a file of claims.
    """
    path = Path(study) / "claims.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))["claims"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise HistotransferError(f"{path}: not the file of claims ({error})") from error


class Study:
    """The plans and the records made from them.

    Args:
        study: folder of the plans and of `claims.toml`.
        results: folder of the experiments.
        quick: the runs are those of `study all --quick`.
    """

    def __init__(self, study: str | Path, results: str | Path, *, quick: bool = False):
        self.study, self.results, self.quick = Path(study), Path(results), quick
        self.claims = read_claims(study)

    def plan(self, experiment: str) -> Plan:
        """The plan of an experiment.

        Raises:
            HistotransferError: it is missing or invalid.
        """
        return read_plan(self.study / f"{experiment}.toml").model_copy(update={"quick": self.quick})

    def runs(
        self, experiment: str, arm: str, stage: str = "", seeds: Collection[int] = (), views: int = 0
    ) -> list[Run]:
        """The runs of an arm: after a stage or, without one, after the last; all seeds, or only those given.

        With `views` the last network's predictions by so many views (`record_views`); 0: by all that it averages.

        Raises:
            NotRunYet: runs of the plan are missing.
        """
        planned = planned_runs(self.plan(experiment))
        names = [run.name for run in planned if run.arm == arm and (not seeds or run.config.seed in seeds)]
        suffix = f"-after-{stage}" if stage else f"-with-{views}-views" if views else ""
        folders = [self.results / experiment / f"{name}{suffix}" for name in names]
        missing = [folder.name for folder in folders if not (folder / "record.json").is_file()]
        if missing or not folders:
            raise NotRunYet(
                f"{experiment}, arm {arm}: {len(missing)} of {len(folders)} runs are not there yet;"
                f" `histotransfer study run {self.study / experiment}.toml` makes them"
            )
        return [read_run(folder) for folder in folders]

    def predictions(
        self, experiment: str, arm: str, stage: str = "", part: str = "test", seeds: Collection[int] = ()
    ) -> pd.DataFrame:
        """Predictions of an arm, averaged over its runs by `pool`; those of the test part are out of fold.

        Raises:
            NotRunYet: runs of the plan are missing.
            HistotransferError: the runs did not predict that part.
        """
        return pool((run.predictions for run in self.runs(experiment, arm, stage, seeds)), part)

    def pooled(
        self, experiment: str, arm: str, stage: str = "", part: str = "test", seeds: Collection[int] = ()
    ) -> Run:
        """`predictions` in the form of a run, as the functions of `tables` take it."""
        return _as_run(arm, stage, self.predictions(experiment, arm, stage, part, seeds))

    def history(self, experiment: str, arm: str) -> pd.DataFrame:
        """The histories of an arm's runs in one table; `seed` holds the run's name, by which `figures` separate runs.

        The source task is trained once per seed, for all folds, so its history is there once, under the first fold.

        Raises:
            NotRunYet: runs of the plan are missing.
        """
        histories, seen = [], set()
        for run in self.runs(experiment, arm):
            history, seed = run.history, run.record["seed"]
            if seed in seen:
                history = history[history["dataset"] == history["dataset"].iloc[-1]]
            seen.add(seed)
            histories.append(history.assign(seed=run.folder.name))
        return pd.concat(histories, ignore_index=True)

    def within(self, experiment: str, name: str, stage: str = "") -> Run:
        """Arms of one magnification each (`<name>-40`, `<name>-100`, ...), each tested on its own, as one run.

        Raises:
            NotRunYet: runs of the plan are missing.
        """
        arms = {at: self.predictions(experiment, f"{name}-{at}", stage) for at in MEAN_OVER}
        tables = [table[table["magnification"] == at] for at, table in arms.items()]
        return _as_run(name, stage, pd.concat(tables, ignore_index=True))

    def each(self, experiment: str, arm: str, stage: str = "") -> Run:
        """Test predictions of an arm whose folds overlap, one row per image and fold that tested it.

        Raises:
            NotRunYet: runs of the plan are missing.
        """
        tables = [run.predictions.query("part == 'test'") for run in self.runs(experiment, arm, stage)]
        return _as_run(arm, stage, pd.concat(tables, ignore_index=True))


def _as_run(arm: str, stage: str, predictions: pd.DataFrame) -> Run:
    """Predictions put together from several runs, in the form of a run."""
    return Run(Path(f"{arm} after {stage}" if stage else arm), {}, pd.DataFrame(), predictions, {})
