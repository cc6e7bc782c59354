"""How far training has moved the SE gates of a run, recorded from its weights.

``histotransfer experiment gates RUN --data DIR`` writes `results/gates`: `gates.csv`, `record.json`, `provenance.json`.
Gates are read on the run's validation images; nothing is tuned on them.
"""

from pathlib import Path

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.dose import gate_statistics
from histotransfer.files import file_hash
from histotransfer.models.description import describe
from histotransfer.models.weights import load_model
from histotransfer.records import environment, image_paths, read_run, write_record
from histotransfer.tiles import TileSource, load_tiles

TARGET = Path("results/gates")
WEIGHTS = "model.safetensors"


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
    tiles, _ = load_tiles(image_paths(images, data_root).tolist(), known.size, known.colours)
    record = {
        **{key: recorded.record[key] for key in ("experiment", "run", "profile", "seed")},
        "data": recorded.record["data"]["name"],
        "part": "validation",
        "images": len(images),
        "schedule": recorded.record["config"]["breakhis_schedule"],
        "weights": weights,
    }
    return write_record(Path(out), record, {"gates": gate_statistics(model, TileSource(tiles))}, environment())
