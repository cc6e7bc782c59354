"""Checkpoints of a training: one file, always replaced as a whole.

A run that is killed at any moment and started again ends with the same weights, to the last bit, as a run that was not
interrupted: what is not in the file follows from the seed and the epoch (`histotransfer.transfer.training`), so there
is no state of a random generator to keep.
"""

import hashlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from histotransfer.files import whole_file

SECONDS = 30.0  # between two checkpoints within a stage; the end of a stage is always kept


class Checkpoint:
    """The state of one training on disk.

    Args:
        folder: folder of the file; created when the file is first written.
        identity: everything that the result depends on; the file's name is its hash, so another training has another
            file. It starts with a dot, so it is hidden beside the runs.
        seconds: least time between two checkpoints within a stage; the end of a stage is always saved.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], seconds: float = SECONDS):
        self.key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.path, self.seconds = folder / f".{self.key[:32]}.pt", seconds
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The saved state; None if there is no file, it belongs to another training, or it cannot be read."""
        try:
            kept = torch.load(self.path, weights_only=True)
        except FileNotFoundError:
            return None
        except Exception:  # torch raises whatever the zip or the unpickler meets first; the training starts over
            return None
        return kept["state"] if isinstance(kept, dict) and kept.get("key") == self.key else None

    def due(self) -> bool:
        """Whether enough time has passed since the last checkpoint."""
        return time.monotonic() - self._last >= self.seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file.

        Raises:
            OSError: it cannot be written; the previous file stays.
        """
        content = io.BytesIO()  # torch's writer of files hides why one could not be written
        torch.save({"key": self.key, "state": dict(state)}, content)
        with whole_file(self.path) as temporary:
            temporary.write_bytes(content.getbuffer())
        self._last = time.monotonic()

    def clear(self) -> None:
        """Remove the file, and any temporary file that a killed run left.

        The folder stays: another run may be about to write into it.
        """
        self.path.unlink(missing_ok=True)
        for leftover in self.path.parent.glob(f".{self.path.name}.*.part"):
            leftover.unlink(missing_ok=True)
