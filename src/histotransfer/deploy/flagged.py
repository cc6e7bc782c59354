"""Which share of pictures `predict` says are odd, kind by kind, for a network that ships.

``histotransfer experiment flagged --data DIR`` writes `results/flagged`: `flagged.csv`, `record.json`,
`provenance.json`. Nothing is chosen from it.

Every kind but one is predicted as a user would. The network knows all patients of BreakHis; so those are judged by
networks of its recipe that never saw them, one for each fold, with the threshold that the other folds give.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from histotransfer.config import LadderConfig, validated
from histotransfer.datasets import breakhis, lc25000, ucsb
from histotransfer.datasets.oddities import NO_TISSUE, greys
from histotransfer.datasets.roots import resolve_root
from histotransfer.deploy.notes import UNLIKE
from histotransfer.deploy.predict import Prediction, Predictor, Ready
from histotransfer.deploy.shipping import held_out_distances
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.familiarity import threshold
from histotransfer.evaluation.intervals import intervals
from histotransfer.files import file_hash, scratch_folder
from histotransfer.pictures import decode
from histotransfer.records import environment, write_record
from histotransfer.transfer.stages import Report

TARGET = Path("results/flagged")
HELD_OUT = "BreakHis, held-out patients"
COUNT = 100  # pictures of a kind at most
SIZE = 448  # pixels per side of pictures that are made
SEED = 0


def run(weights: str | Path, data_root: str | Path, out: str | Path = TARGET, *, report: Report = print) -> Path:
    """Predict pictures of every kind, and write which share of them is flagged.

    Args:
        weights: a network of `histotransfer study ship`.
        data_root: folder with BreakHis, LC25000 and UCSB.
        out: folder of the record.
        report: called with one line per step.

    Returns:
        `out`.

    Raises:
        HistotransferError: the network does not know what is unlike its training pictures or does not say how it was
            trained, or a data set cannot be used.
    """
    around, weights, out = environment(), Path(weights), Path(out)
    predictor = Predictor(weights)
    if predictor.familiarity is None or predictor.description.config is None:
        raise HistotransferError(
            f"{weights}: does not say what is unlike its training pictures; give a network of `histotransfer study"
            " ship`"
        )
    recipe = validated(LadderConfig, predictor.description.config).model_copy(update={"split": "patient"})
    with scratch_folder(out) as folder:
        kinds = _pictures(Path(data_root), folder)
        rows = {}
        for kind, table in kinds.items():
            rows[kind] = _flagged(table, predictor)
            report(f"{kind}: {rows[kind]['unlike']:.0%} of {rows[kind]['pictures']} unlike")
        held_out = held_out_distances(recipe, data_root, folder, report)
    rows = {HELD_OUT: _held_out(held_out, predictor), **rows}
    record = {
        "network": {"file": weights.name, "sha256": file_hash(weights)},
        "false_alarms": predictor.familiarity.false_alarms,
        "recipe": recipe.model_dump(mode="json", exclude={"weights", "fold", "split"}),
        "count": COUNT,
        "seed": SEED,
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("kind").round(4)
    return write_record(out, record, {"flagged": table}, around)


def _pictures(root: Path, folder: Path) -> dict[str, pd.DataFrame]:
    """Files of each kind: `path`, and `group`, of which pictures are alike."""
    lung = lc25000.load(root).groupby("group").head(1)
    phantom = breakhis.load(resolve_root("phantom")).groupby(["group", "magnification"]).head(1)
    kinds = {"UCSB": ucsb.load(root), "LC25000 (lung)": lung, "phantom": phantom}
    kinds = {kind: table.sample(min(COUNT, len(table)), random_state=SEED) for kind, table in kinds.items()}
    made = {kind: make(COUNT, SIZE, SEED) for kind, make in NO_TISSUE.items()}
    tissue = breakhis.load(root)["path"].sample(COUNT, random_state=SEED, replace=True).drop_duplicates()
    made["grey"] = greys(map(decode, tissue))
    return kinds | {kind: _written(pictures, folder / kind) for kind, pictures in made.items()}


def _written(pictures: Iterable[np.ndarray], folder: Path) -> pd.DataFrame:
    folder.mkdir()
    files = []
    for number, picture in enumerate(pictures):
        files.append(str(folder / f"{number:03d}.png"))
        Image.fromarray(picture).save(files[-1])
    return pd.DataFrame({"path": files, "group": files})


def _flagged(table: pd.DataFrame, predictor: Predictor) -> dict[str, float]:
    found = list(predictor.predict(table["path"]))
    notes = [result.note if isinstance(result, Prediction) else None for result in found]
    unlike = np.array([note is not None and UNLIKE in note.split("; ") for note in notes])
    others = [note is not None and bool(set(filter(None, note.split("; "))) - {UNLIKE}) for note in notes]
    return _row(table["group"], unlike, np.array(others), np.array([note is None for note in notes]))


def _held_out(table: pd.DataFrame, predictor: Predictor) -> dict[str, float]:
    """The distances of each fold against the threshold of the others; the notes on the pictures themselves."""
    unlike = np.zeros(len(table), dtype=bool)
    for fold in table["fold"].unique():
        own = (table["fold"] == fold).to_numpy()
        unlike[own] = table["distance"][own] > threshold(table["distance"][~own].to_numpy())
    prepared = [predictor.prepare([file])[0] for file in table["path"]]
    others = np.array([isinstance(each, Ready) and bool(each.notes) for each in prepared])
    return _row(table["group"], unlike, others, np.array([not isinstance(each, Ready) for each in prepared]))


def _row(groups: pd.Series, unlike: np.ndarray, others: np.ndarray, refused: np.ndarray) -> dict[str, float]:
    """Shares of all pictures; `low` and `high` of `unlike`, clustered by group."""
    share = _share(groups, unlike)
    return {
        "pictures": len(groups),
        "groups": groups.nunique(),
        "unlike": share["value"],
        "low": share["low"],
        "high": share["high"],
        "otherwise noted": others.mean(),
        "refused": refused.mean(),
    }


def _share(groups: pd.Series, flags: np.ndarray) -> Mapping[str, float]:
    """A share with its interval, as of an accuracy: `value`, `low`, `high`."""
    groups = groups.reset_index(drop=True).astype(str)
    about = {"image": groups.index.astype(str), "patient": groups, "group": groups, "magnification": 0}
    table = pd.DataFrame(about).assign(truth="yes", logit_no=np.where(flags, -1.0, 1.0), logit_yes=0.0)
    return intervals(table).loc["accuracy"]
