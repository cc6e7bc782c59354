"""Outputs of frozen network prefixes, computed once per image and view, and kept on disk.

While the first groups of a network are frozen, their output for an image is a constant, and rotations and flips are a
finite set of views. So every epoch, fold, seed and ablation that shares a prefix trains on the same stored activations.

What is stored is float32, exactly what the prefix computes: nothing is rounded. An item is always computed in a batch
of `CHUNK`, padded if necessary, so that its bits do not depend on the items requested with it (oneDNN chooses its
kernels by batch size; and on a CPU eight at a time is the fastest).

On disk: one folder per prefix, named by `prefix_key`. It holds segments of some items each, and the file name of a
segment is the sha256 of its bytes. So a segment that is damaged, cut off or foreign is recognised, deleted and computed
again; two processes may fill a folder at once; and nothing is ever half-written.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from histotransfer.config import cache_dir
from histotransfer.errors import HistotransferError
from histotransfer.files import remove_stale, whole_file
from histotransfer.models.se import SqueezeExcite
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.tiles import KEY_BYTES, KeyedSource
from histotransfer.transfer.unfreezing import module_groups, run_groups

CHUNK = 8
SEGMENT_BYTES = 32 * 2**20


def cache_folder() -> Path:
    """The folder in which the activations of all prefixes are kept."""
    return cache_dir() / "prefix"


def prefix_key(model: SEDenseNet, stop: int, device: str) -> str:
    """A name for what the groups below `stop` compute: a hash of their weights and BatchNorm statistics.

    Gates that are exactly 1 are left out, so that a network with untrained gates shares its activations with the plain
    one, to the last bit. The version of torch, the kind of device and the number of threads are part of it: each may
    change the last digit.
    """
    digest = hashlib.sha256(f"{torch.__version__} {device} {torch.get_num_threads()}\n".encode())
    names = {module: name for name, module in model.named_modules()}
    prefix = tuple(f"{names[module]}." for _, modules in module_groups(model)[:stop] for module in modules)
    gates = {f"{name}.": gate for gate, name in names.items() if isinstance(gate, SqueezeExcite)}
    identities = tuple(name for name, gate in gates.items() if _is_identity(gate))
    for name, gate in gates.items():
        if name.startswith(prefix) and name not in identities:
            digest.update(f"{name} {gate.scale}\n".encode())
    for name, tensor in model.state_dict().items():
        if name.startswith(prefix) and not name.startswith(identities):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _is_identity(gate: SqueezeExcite) -> bool:
    """Whether every gate is exactly 1 for any input: twice the sigmoid of 0."""
    return gate.scale == 2 and not (gate.expand.weight.any() or gate.expand.bias.any())


class ActivationStore:
    """Activations of one prefix on disk: arrays of one shape under byte keys.

    Args:
        folder: of this prefix; created when the first segment is written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.rebuilt = 0  # segments deleted because their bytes did not match their name
        self._where: dict[bytes, tuple[Any, int]] = {}  # a segment's rows, which safetensors reads lazily; position
        self._pending: dict[bytes, np.ndarray] = {}
        self._known: set[str] = set()

    def __contains__(self, key: bytes) -> bool:
        return key in self._pending or key in self._where

    def refresh(self) -> None:
        """Open segments that were written since the last call, by this process or another."""
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            if path.suffix == ".part":
                remove_stale(path)
            elif path.name not in self._known:
                self._known.add(path.name)
                self._open(path)

    def _open(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == path.stem
            if not whole:
                raise ValueError("its bytes are not those that its name says")
            segment = safe_open(path, framework="numpy")
            if segment.metadata()["prefix"] != self.folder.name:
                raise ValueError("of another prefix")
            keys, rows = segment.get_tensor("keys"), segment.get_slice("activations")
        except FileNotFoundError:  # cleared by another process since it was listed
            return
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            path.unlink(missing_ok=True)
            self.rebuilt += 1
            return
        for i, key in enumerate(keys):
            self._where[key.tobytes()] = (rows, i)

    def get(self, keys: Sequence[bytes]) -> np.ndarray:
        """``(len(keys), ...)`` float32; every key must be there."""
        items = []
        for key in keys:
            if key in self._pending:
                items.append(self._pending[key])
            else:
                rows, i = self._where[key]
                items.append(rows[i])
        return np.stack(items)

    def put(self, key: bytes, activations: np.ndarray) -> None:
        """Keep one item; it is written to disk when a segment is full, or by `flush`."""
        self._pending[key] = activations
        if len(self._pending) * activations.nbytes >= SEGMENT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one segment.

        Raises:
            HistotransferError: it cannot be written, as on a full disk; nothing is left behind.
        """
        if not self._pending:
            return
        tensors = {
            "keys": np.frombuffer(b"".join(self._pending), dtype=np.uint8).reshape(-1, KEY_BYTES),
            "activations": np.stack(list(self._pending.values())),
        }
        content = save(tensors, {"prefix": self.folder.name})
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        try:
            with whole_file(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise HistotransferError(
                f"{self.folder}: activations cannot be stored ({error.strerror or error}); free some space, set"
                " HISTOTRANSFER_CACHE to another disk, or run `histotransfer cache clear`"
            ) from error
        self._pending.clear()
        self._known.add(path.name)
        self._open(path)


class CachedSource:
    """A source's items after the groups `start` to ``stop - 1``, computed when first asked for.

    Args:
        below: items at cut `start`.
        model: in eval mode; its groups below `stop` must not change while this source is in use.
        start: cut that `below` serves.
        stop: cut that this one serves.
        store: where results are kept.
        device: where the prefix runs.
    """

    def __init__(
        self, below: KeyedSource, model: SEDenseNet, start: int, stop: int, store: ActivationStore, device: str
    ):
        self.below, self.model, self.start, self.stop = below, model, start, stop
        self.store, self.device = store, device
        self.views = below.views

    def __len__(self) -> int:
        return len(self.below)

    def keys(self, rows: np.ndarray, views: np.ndarray) -> list[bytes]:
        """The keys of the tiles: a folder of the store belongs to one prefix, so they need not name it."""
        return self.below.keys(rows, views)

    def batch(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """``(len(rows), C, H, W)`` float32, channels last; or ``(len(rows), C)`` at the head's cut."""
        keys = self.keys(rows, views)
        if any(key not in self.store for key in keys):
            self.store.refresh()
        absent = {key: i for i, key in enumerate(keys) if key not in self.store}
        positions = np.array(list(absent.values()), dtype=int)
        for start in range(0, len(positions), CHUNK):
            chunk = positions[start : start + CHUNK]
            for i, item in zip(chunk, self._compute(rows[chunk], views[chunk]), strict=False):
                self.store.put(keys[i], item)
        activations = torch.from_numpy(self.store.get(keys))
        return activations.movedim(-1, 1) if activations.ndim == 4 else activations

    @torch.no_grad()
    def _compute(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """At most `CHUNK` items, in a batch of exactly `CHUNK`: ``(CHUNK, H, W, C)`` or ``(CHUNK, C)``."""
        padded = np.arange(CHUNK) % len(rows)
        x = self.below.batch(rows[padded], views[padded]).to(self.device)
        y = run_groups(self.model, x, self.start, self.stop).cpu()
        return y.movedim(1, -1).contiguous().numpy() if y.ndim == 4 else y.numpy()

    def flush(self) -> None:
        """Write everything that is not on disk yet, at this cut and those below."""
        self.store.flush()
        flush(self.below)


def flush(source: KeyedSource) -> None:
    """`CachedSource.flush`, for any source: tiles have nothing to write."""
    if isinstance(source, CachedSource):
        source.flush()


def cached_source(tiles: KeyedSource, model: SEDenseNet, cuts: Sequence[int], stop: int, device: str) -> KeyedSource:
    """The tiles at cut `stop` of a network whose groups below `stop` are frozen, through the cache.

    Args:
        tiles: cut 0.
        model: the network.
        cuts: all cuts that some stage trains from; those below `stop` are stored on the way.
        stop: the cut wanted; 0 gives the tiles themselves.
        device: where the prefix runs.
    """
    source, start = tiles, 0
    for cut in sorted({cut for cut in cuts if 0 < cut < stop} | ({stop} if stop else set())):
        store = ActivationStore(cache_folder() / prefix_key(model, cut, device))
        source, start = CachedSource(source, model, start, cut, store, device), cut
    return source


@dataclass(frozen=True)
class Kept:
    """What the cache holds of one prefix."""

    prefix: str
    segments: int
    size: int
    used: float


def list_cache() -> list[Kept]:
    """Every prefix in the cache, most recently written first; sizes in bytes, `used` in seconds since 1970."""
    kept = []
    for folder in cache_folder().iterdir() if cache_folder().is_dir() else ():
        files = [path.stat() for path in folder.iterdir()]
        kept.append(
            Kept(
                folder.name,
                len(files),
                sum(file.st_size for file in files),
                max((file.st_mtime for file in files), default=folder.stat().st_mtime),
            )
        )
    return sorted(kept, key=lambda prefix: -prefix.used)


def clear_cache() -> int:
    """Remove every stored activation; returns the bytes freed."""
    size = sum(kept.size for kept in list_cache())
    shutil.rmtree(cache_folder(), ignore_errors=True)
    return size
