"""A trained network as a file for other programs: OpenVINO, ONNX or safetensors.

Each file carries the description in the header of the weights file, under the key `histotransfer`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from histotransfer.errors import HistotransferError, needs_extra
from histotransfer.models import openvino
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import load_model, save_model

Format = Literal["openvino", "onnx", "safetensors"]
Network = Callable[[Tensor], Tensor]
SUFFIX: dict[Format, str] = {"openvino": ".xml", "onnx": ".onnx", "safetensors": ".safetensors"}
TOLERANCE = 1e-4


def write_network(model: SEDenseNet, description: Mapping[str, Any], to: Format, path: Path) -> None:
    """Write `model` in the format `to`, for batches of any length.

    Args:
        model: in eval mode, on the CPU.
        description: of the network, with `size`; it is stored in the file.
        to: the format; openvino writes an .xml and a .bin beside it.
        path: the file, with the suffix of the format.

    Raises:
        HistotransferError: the extra `export` is not installed.
    """
    if to == "safetensors":
        save_model(model, path, description)
    elif to == "openvino":
        openvino.save(openvino.convert(model, description["size"], description), path)
    else:
        _write_onnx(model, description, path)


def _write_onnx(model: SEDenseNet, description: Mapping[str, Any], path: Path) -> None:
    with needs_extra("export"):
        import onnx
        import onnxscript  # noqa: F401  torch's exporter needs it and says so less clearly
    example = torch.zeros(2, 3, description["size"], description["size"])
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    program = cast(torch.onnx.ONNXProgram, program)  # None with dynamo=False only
    program.model.metadata_props[openvino.DESCRIPTION] = json.dumps(description, sort_keys=True)
    program.save(path)
    onnx.checker.check_model(path)


def read_network(path: Path, to: Format) -> Network:
    """Load a written network as a function from ``(N, 3, S, S)`` to logits; OpenVINO runs ONNX too."""
    if to == "safetensors":
        return torch.inference_mode()(load_model(path)[0])
    model = openvino.load(path)[0] if to == "openvino" else openvino.import_openvino().Core().read_model(path)
    return openvino.OpenVINONetwork(model)


@torch.inference_mode()
def check_outputs(model: SEDenseNet, network: Network, images: Tensor) -> float:
    """The largest difference between the logits of two networks.

    Raises:
        HistotransferError: it is above `TOLERANCE`.
    """
    difference = float((model(images) - network(images)).abs().max())
    if not difference <= TOLERANCE:
        raise HistotransferError(
            f"export: outputs differ by {difference:.2g}, more than {TOLERANCE:g}; nothing was written"
        )
    return difference
