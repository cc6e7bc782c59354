"""How far training has moved the SE gates of a run: a record made from its weights.

``python -m histotransfer.study.gates RUN DATA`` writes `results/gates`: `gates.csv`, `record.json`, `provenance.json`.
Gates are read on the run's validation images; nothing is tuned on what they say.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.explain import gates
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import load_model
from histotransfer.stain import normaliser
from histotransfer.study.records import FLOATS, environment, file_hash, image_paths, read_run, run_folder, write_json
from histotransfer.tiles import Source, TileSource, load_tiles

TARGET = Path("results/gates")
WEIGHTS = "model.safetensors"


def gate_statistics(model: SEDenseNet, source: Source) -> pd.DataFrame:
    """How far each gate is from 1, over all its channels and all images.

    Args:
        model: a network with gates, in eval mode, on the CPU.
        source: N images.

    Returns:
        One row a gate, in the network's order: `channels`; `lowest` and `highest` of its ``(N, C)`` values; `moved`,
        the mean of ``|gate - 1|``; `by_image`, the standard deviation over images, averaged over channels (0: each
        gate is a constant, whatever the image).

    Raises:
        HistotransferError: a network without gates.
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


def write_gates(run: str | Path, data_root: str | Path, out: str | Path = TARGET) -> Path:
    """Write the `gate_statistics` of a run's network on its validation images.

    Args:
        run: folder of a run, with its weights.
        data_root: folder of the data that it was trained on.
        out: folder of the record.

    Returns:
        `out`.

    Raises:
        HistotransferError: not a run, weights that are not its own, or images that are not there.
    """
    found, out = read_run(Path(run)), Path(out)
    model, description = load_model(found.folder / WEIGHTS)
    weights = file_hash(found.folder / WEIGHTS)
    if weights != found.record["artifacts"].get(WEIGHTS):
        raise HistotransferError(f"{found.folder / WEIGHTS}: is not the file that record.json names; run it again")
    images = found.predictions.loc[found.predictions["part"] == "validation", "image"]
    tiles, _ = load_tiles(
        image_paths(images, data_root).tolist(),
        description["size"],
        normaliser(description["normaliser"], description.get("reference", ())),
    )
    record = {
        **{key: found.record[key] for key in ("experiment", "run", "profile", "seed")},
        "data": found.record["data"]["name"],
        "part": "validation",
        "images": len(images),
        "schedule": found.record["config"]["breakhis_schedule"],
        "weights": weights,
    }
    with run_folder(out) as temporary:
        gate_statistics(model, TileSource(tiles)).to_csv(
            temporary / "gates.csv", float_format=FLOATS, lineterminator="\n"
        )
        write_json(temporary / "record.json", record)
        write_json(temporary / "provenance.json", environment())
    return out


if __name__ == "__main__":
    print(write_gates(sys.argv[1], sys.argv[2]))
