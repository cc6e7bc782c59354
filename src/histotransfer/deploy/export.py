"""A trained network as a file for other programs: OpenVINO, ONNX or safetensors.

Each file carries the description in the header of the weights file, under the key `histotransfer`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from histotransfer.errors import HistotransferError, needs_extra
from histotransfer.models import openvino
from histotransfer.models.se_densenet import OnArrays, SEDenseNet, WithFeatures
from histotransfer.models.weights import load_model, save_model

Format = Literal["openvino", "onnx", "safetensors"]
Network = Callable[[np.ndarray], np.ndarray]
SUFFIX: dict[Format, str] = {"openvino": ".xml", "onnx": ".onnx", "safetensors": ".safetensors"}
TOLERANCE = 1e-4


def write_network(
    model: SEDenseNet,
    description: Mapping[str, Any],
    to: Format,
    path: Path,
    beside: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write `model` in the format `to`, for batches of any length.

    Args:
        model: in eval mode, on the CPU.
        description: of the network, with `size`; it is stored in the file.
        to: the format; openvino writes an .xml and a .bin beside it.
        path: the file, with the suffix of the format.
        beside: arrays that are kept with the network; safetensors holds them, the other formats do not.

    Raises:
        HistotransferError: the extra `export` is not installed.
    """
    if to == "safetensors":
        save_model(model, path, description, beside)
    elif to == "openvino":
        openvino.save(openvino.convert(model, description["size"], description), path)
    else:
        _write_onnx(model, description, path)


def write_half(model: WithFeatures, description: Mapping[str, Any], path: Path) -> None:
    """Write ONNX whose weights are stored in 16 bits and computed with in 32: half as large, exact for 16-bit weights.

    Weights in 8 bits, a scale for each channel, moved probabilities of phantoms by up to 0.04.

    Args:
        model: as `write_network`'s, with its features.
        description: as `write_network`'s.
        path: the file.

    Raises:
        HistotransferError: the extra `export` is not installed.
    """
    _write_onnx(model, description, path, fused=False)
    import onnx
    from onnx import helper, numpy_helper

    whole = onnx.load(path)
    casts = []
    for stored in whole.graph.initializer:
        values = numpy_helper.to_array(stored)
        if values.dtype == np.float32:
            name = stored.name
            stored.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *whole.graph.node]
    del whole.graph.node[:]
    whole.graph.node.extend(nodes)
    del whole.graph.value_info[:]  # the exporter's, of what is in between: a third of the rest of the file
    for node in whole.graph.node:
        del node.metadata_props[:]
    onnx.checker.check_model(whole, full_check=True)
    onnx.save(whole, path)


def _write_onnx(
    model: SEDenseNet | WithFeatures, description: Mapping[str, Any], path: Path, *, fused: bool = True
) -> None:
    """Where `fused`, a convolution holds the BatchNorm behind it: fewer steps, and weights that 16 bits do not hold."""
    with needs_extra("export"):
        import onnx
        import onnxscript  # noqa: F401  torch's exporter needs it and says so less clearly
    example = torch.zeros(2, 3, description["size"], description["size"])
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False, optimize=fused)
    program = cast(torch.onnx.ONNXProgram, program)  # None with dynamo=False only
    program.model.metadata_props[openvino.DESCRIPTION] = json.dumps(description, sort_keys=True)
    program.save(path)
    onnx.checker.check_model(path)


def read_network(path: Path, to: Format) -> Network:
    """Load a written network as a function from ``(N, 3, S, S)`` to logits; OpenVINO runs ONNX too."""
    if to == "safetensors":
        return OnArrays(load_model(path)[0])
    model = openvino.load(path)[0] if to == "openvino" else openvino.import_openvino().Core().read_model(path)
    return openvino.OpenVINONetwork(model)


def check_outputs(model: SEDenseNet, network: Network, images: np.ndarray) -> float:
    """The largest difference between the logits of two networks on images ``(N, 3, S, S)``.

    Raises:
        HistotransferError: it is above `TOLERANCE`.
    """
    difference = float(np.abs(OnArrays(model)(images) - network(images)).max())
    if not difference <= TOLERANCE:
        raise HistotransferError(
            f"export: outputs differ by {difference:.2g}, more than {TOLERANCE:g}; nothing was written"
        )
    return difference
