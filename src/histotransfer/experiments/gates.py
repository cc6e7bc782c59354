"""How far training has moved the SE gates of a run, recorded from its weights.

``histotransfer experiment gates RUN --data DIR`` writes `results/gates`: `gates.csv`, `record.json`, `provenance.json`.
Gates are read on the run's validation images; nothing is tuned on them.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.explain import gates
from histotransfer.files import file_hash
from histotransfer.models.description import describe
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import load_model
from histotransfer.records import environment, image_paths, read_run, write_record
from histotransfer.tiles import Source, TileSource, load_tiles

TARGET = Path("results/gates")
WEIGHTS = "model.safetensors"


def gate_statistics(model: SEDenseNet, source: Source) -> pd.DataFrame:
    """How far each gate is from 1, over all its channels and all images.

    Args:
        model: a network with gates, in eval mode, on the CPU.
        source: N images.

    Returns:
        One row per gate, in the network's order: `channels`; `lowest` and `highest` of its ``(N, C)`` values; `moved`,
        the mean of ``|gate - 1|``; `by_image`, the standard deviation over images, averaged over channels (0: the gate
        is the same for every image).

    Raises:
        HistotransferError: the network has no gates.
    """
    rows = {
        name: {
            "channels": values.shape[1],
            "lowest": values.min(),
            "highest": values.max(),
            "moved": np.abs(values - 1.0).mean(dtype=float),
            "by_image": values.std(axis=0, dtype=float).mean(),
        }
        for name, values in gates(model, source).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"channels": int}).rename_axis("gate")


def run(folder: str | Path, data_root: str | Path, out: str | Path = TARGET) -> Path:
    """Write the `gate_statistics` of a run's network on its validation images.

    Args:
        folder: of a run, with its weights.
        data_root: folder of the data that it was trained on.
        out: folder of the record.

    Returns:
        `out`.

    Raises:
        HistotransferError: the folder is not a run's, the weights are not the run's, or an image is missing.
    """
    recorded = read_run(Path(folder))
    file = recorded.folder / WEIGHTS
    model, metadata = load_model(file)
    known, weights = describe(metadata, file), file_hash(file)
    if weights != recorded.record["artifacts"].get(WEIGHTS):
        raise HistotransferError(f"{file}: is not the file that record.json names; run it again")
    images = recorded.predictions.loc[recorded.predictions["part"] == "validation", "image"]
    tiles, _ = load_tiles(image_paths(images, data_root).tolist(), known.size, known.normaliser)
    record = {
        **{key: recorded.record[key] for key in ("experiment", "run", "profile", "seed")},
        "data": recorded.record["data"]["name"],
        "part": "validation",
        "images": len(images),
        "schedule": recorded.record["config"]["breakhis_schedule"],
        "weights": weights,
    }
    return write_record(Path(out), record, {"gates": gate_statistics(model, TileSource(tiles))}, environment())
