"""Networks in OpenVINO's form: on the CPU faster than PyTorch, and in int8 faster still.

PyTorch is imported to convert a network, and not to run one.

OpenVINO and NNCF report usage to their makers by default. Here neither can: both fall back to a stub when the package
`openvino_telemetry` cannot be imported, and this module blocks that import before it imports them.
"""

import contextlib
import hashlib
import io
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histotransfer.config import cache_dir
from histotransfer.errors import HistotransferError, needs_extra
from histotransfer.files import file_hash, whole_folder
from histotransfer.models.weights_file import DESCRIPTION

if TYPE_CHECKING:
    from torch import nn


def import_openvino() -> Any:
    """The package `openvino`, with its telemetry and NNCF's switched off.

    Raises:
        HistotransferError: it is not installed.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None blocks an import; typeshed omits it
    with needs_extra("export"):
        import openvino
    return openvino


def convert(model: "nn.Module", size: int, description: Mapping[str, Any]) -> Any:
    """An `openvino.Model` for batches of any length, of images with `size` pixels per side.

    Args:
        model: in eval mode, on the CPU.
        size: pixels per side.
        description: anything that JSON can hold; stored inside the file.
    """
    openvino = import_openvino()
    import torch

    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (torch.zeros(2, 3, size, size),), dynamic_shapes=({0: batch},))
    converted = openvino.convert_model(exported)
    converted.reshape([-1, 3, size, size])
    converted.set_rt_info(json.dumps(description, sort_keys=True), [DESCRIPTION])
    return converted


def save(model: Any, path: Path) -> None:
    """Write `path` (.xml) and the .bin beside it, weights as they are (OpenVINO would halve them).

    Raises:
        OSError: they cannot be written.
    """
    try:
        import_openvino().save_model(model, path, compress_to_fp16=False)
    except RuntimeError:
        with path.with_suffix(".bin").open("ab") as file:  # OpenVINO does not say that the disk is full; Python does
            file.write(bytes(2**20))
        raise


def load(path: Path) -> tuple[Any, dict[str, Any]]:
    """Read a model written by `save`, and its description.

    Raises:
        HistotransferError: missing, damaged, not one of this project's files, or with weights that are not finite.
    """
    openvino = import_openvino()
    for file in (path, path.with_suffix(".bin")):
        if not file.is_file():
            raise HistotransferError(f"{file}: no such file; an OpenVINO model is an .xml with its .bin beside it")
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise HistotransferError(f"{path}: not a readable OpenVINO model; export it again") from error
    if not model.has_rt_info([DESCRIPTION]):
        raise HistotransferError(f"{path}: not written by `histotransfer export` (no description in it)")
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    if not all(np.isfinite(node.get_data()).all() for node in constants):
        raise HistotransferError(f"{path}: its weights hold NaN or infinity; train again with a lower rate and export")
    try:
        return model, json.loads(model.get_rt_info([DESCRIPTION]).astype(str))
    except (ValueError, RecursionError) as error:
        raise HistotransferError(f"{path}: its description cannot be read; export it again") from error


def converted_folder() -> Path:
    """Where `converted` keeps networks."""
    return cache_dir() / "openvino"


def converted(weights: Path) -> Any:
    """The network of a weights file, with its features (`WithFeatures`): converted once, then read from the cache.

    Raises:
        HistotransferError: as `weights.load_model`; or the extra `export` is not installed.
    """
    openvino = import_openvino()
    code = [file_hash(file) for file in (Path(__file__), Path(__file__).with_name("se_densenet.py"))]
    key = hashlib.sha256(" ".join([file_hash(weights), openvino.__version__, *code]).encode()).hexdigest()
    kept = converted_folder() / key[:32] / "network.xml"
    if not kept.is_file():
        from histotransfer.models.se_densenet import WithFeatures
        from histotransfer.models.weights import load_model

        model, metadata = load_model(weights)
        network = convert(WithFeatures(model).eval(), metadata["size"], metadata)
        try:
            with whole_folder(kept.parent) as folder:
                save(network, folder / kept.name)
        except OSError:  # a cache that is full or cannot be written costs time, not the prediction
            return network
    return load(kept)[0]


def fits(model: Any, size: int, classes: int) -> bool:
    """Whether a model takes images with `size` pixels per side, any number at once, and has `classes` logits."""
    shapes = [[str(length) for length in port.partial_shape] for port in (*model.inputs, *model.outputs)]
    return shapes == [["?", "3", str(size), str(size)], ["?", str(classes)]]


def outputs(model: Any) -> int:
    """How many numbers a model gives per image."""
    return model.output().partial_shape[1].get_length()


class OpenVINONetwork:
    """A model compiled for this machine's CPU: ``(N, 3, S, S)`` float32 to logits ``(N, classes)``.

    Images run one by one on as many streams as OpenVINO finds best; a result does not depend on its batch.

    Args:
        model: as `convert` or `load` return it.
    """

    def __init__(self, model: Any):
        openvino = import_openvino()
        model = model.clone()
        shape = model.input().partial_shape
        shape[0] = 1
        model.reshape(shape)
        # On a CPU with bfloat16 OpenVINO would compute in it: two digits of a logit are lost.
        precision = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
        self.requests = openvino.AsyncInferQueue(openvino.Core().compile_model(model, "CPU", precision))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        logits: list[np.ndarray] = [np.empty(0)] * len(x)

        def keep(request: Any, row: int) -> None:
            logits[row] = request.get_output_tensor().data.copy()

        self.requests.set_callback(keep)
        for row, image in enumerate(x):
            self.requests.start_async([np.ascontiguousarray(image[None])], row)
        self.requests.wait_all()
        return np.concatenate(logits)


def quantise(model: Any, images: np.ndarray) -> Any:
    """The same network in int8: NNCF's post-training quantisation, with its defaults.

    Args:
        model: as `convert` returns it.
        images: ``(M, 3, S, S)`` to calibrate on; from training patients, never from test patients.

    Raises:
        HistotransferError: NNCF is not installed.
    """
    import_openvino()
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns that it found no GPU's compiler
    with needs_extra("export"):
        import nncf
    nncf.set_log_level(logging.ERROR)
    dataset = nncf.Dataset([np.ascontiguousarray(image[None]) for image in images])
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(model, dataset, subset_size=len(images))
