"""What a weights file holds beside its network, read without PyTorch: its description, and arrays kept with it."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from histotransfer.errors import HistotransferError

DESCRIPTION = "histotransfer"  # where the header keeps the description
BESIDE = "beside."  # prefix of tensors that are not the network's


def load_metadata(path: Path) -> dict:
    """The description in the header of a file written by `weights.save_model`.

    Raises:
        HistotransferError: missing, damaged, or not one of this project's files.
    """
    if not path.is_file():
        raise HistotransferError(f"{path}: no such weights file; train one with `histotransfer ladder`")
    try:
        with safe_open(path, "np") as file:
            metadata = json.loads((file.metadata() or {}).get(DESCRIPTION, "null"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[-1][:120]
        raise HistotransferError(f"{path}: not a readable safetensors file ({why})") from error
    if not metadata:
        raise HistotransferError(f"{path}: not a weights file of histotransfer (no description in its header)")
    return metadata


def load_beside(path: Path) -> dict[str, np.ndarray]:
    """The arrays that `weights.save_model` kept with a network; none in older files."""
    with safe_open(path, "np") as file:
        return {name.removeprefix(BESIDE): file.get_tensor(name) for name in file.keys() if name.startswith(BESIDE)}  # noqa: SIM118  no mapping
