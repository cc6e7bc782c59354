"""Networks in OpenVINO's form: on the CPU faster than PyTorch, and in int8 faster still.

OpenVINO and NNCF report usage to their makers by default. Here neither can: both fall back to a stub when the package
`openvino_telemetry` cannot be imported, and this module blocks that import before it imports them.
"""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from histotransfer.errors import HistotransferError, needs_extra

DESCRIPTION = "histotransfer"  # where a model file keeps its description


def import_openvino() -> Any:
    """The package `openvino`, with its telemetry and NNCF's switched off.

    Raises:
        HistotransferError: it is not installed.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None blocks an import; typeshed omits it
    with needs_extra("export"):
        import openvino
    return openvino


def convert(model: nn.Module, size: int, description: Mapping[str, Any]) -> Any:
    """An `openvino.Model` for batches of any length, of images with `size` pixels per side.

    Args:
        model: in eval mode, on the CPU.
        size: pixels per side.
        description: anything that JSON can hold; stored inside the file.
    """
    openvino = import_openvino()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (torch.zeros(2, 3, size, size),), dynamic_shapes=({0: batch},))
    converted = openvino.convert_model(exported)
    converted.reshape([-1, 3, size, size])
    converted.set_rt_info(json.dumps(description, sort_keys=True), [DESCRIPTION])
    return converted


def save(model: Any, path: Path) -> None:
    """Write `path` (.xml) and the .bin beside it, weights as they are (OpenVINO would halve them)."""
    import_openvino().save_model(model, path, compress_to_fp16=False)


def load(path: Path) -> tuple[Any, dict[str, Any]]:
    """Read a model written by `save`, and its description.

    Raises:
        HistotransferError: missing, damaged, or not one of this project's files.
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
    return model, json.loads(model.get_rt_info([DESCRIPTION]).astype(str))


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

    def __call__(self, x: Tensor) -> Tensor:
        logits: list[np.ndarray] = [np.empty(0)] * len(x)

        def keep(request: Any, row: int) -> None:
            logits[row] = request.get_output_tensor().data.copy()

        self.requests.set_callback(keep)
        for row, image in enumerate(x):
            self.requests.start_async([image[None].contiguous().numpy()], row)
        self.requests.wait_all()
        return torch.from_numpy(np.concatenate(logits))


def quantise(model: Any, images: Tensor) -> Any:
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
    dataset = nncf.Dataset([image[None].contiguous().numpy() for image in images])
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(model, dataset, subset_size=len(images))
