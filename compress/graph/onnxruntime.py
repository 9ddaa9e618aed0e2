"""Run networks in onnxruntime: one session per file, tensors by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress.errors import InvalidInput
from compress.importing.agreement import relative_difference
from compress.network import Array, Network, TensorType

if TYPE_CHECKING:
    import onnxruntime


def session(model: bytes, *, threads: int = 1, optimise: bool = True) -> onnxruntime.InferenceSession:
    """Open an onnxruntime CPU session of an ONNX file; it logs errors only.

    Raises:
        InvalidInput: onnxruntime refuses the file.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # see compress/__init__.py for why
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises one class per status code
        raise InvalidInput("file", None, f"onnxruntime refuses the file: {str(error)[:300]}") from error


def run_onnxruntime(
    network: Network, images: NDArray[np.float32], names: Sequence[str] | None = None
) -> dict[str, Array]:
    """Run the network in onnxruntime.

    Args:
        images: (N, *input_shape) float32.
        names: the tensors wanted; None means all outputs. Asking for inner tensors turns optimisation off.

    Raises:
        InvalidInput: onnxruntime refuses the file or fails while running it.
    """
    wanted = list(names) if names is not None else list(network.outputs)
    probe = network
    if names is not None:
        unknown = TensorType((), "float32")
        probe = replace(network, outputs={name: network.types.get(name, unknown) for name in wanted})
        model = _with_untyped_outputs(probe)
    else:
        model = network.save()
    runner = session(model, optimise=names is None)
    try:
        values = runner.run(wanted, {network.input_name: images})
    except Exception as error:  # see session()
        raise InvalidInput("file", None, f"onnxruntime fails on the file: {str(error)[:300]}") from error
    return dict(zip(wanted, values, strict=True))


def _with_untyped_outputs(network: Network) -> bytes:
    import onnx

    proto = network.to_proto()
    for output in list(proto.graph.output):
        if output.name not in network.types:
            proto.graph.output.remove(output)
            proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(output.name))
    return bytes(proto.SerializeToString())


def runtime_noise(model: bytes, inputs: Mapping[str, Array]) -> dict[str, float]:
    """Return how much onnxruntime's optimiser changes each output; this is the noise that rounding causes."""
    runs = []
    for optimise in (True, False):
        runner = session(model, optimise=optimise)
        runs.append(dict(zip([o.name for o in runner.get_outputs()], runner.run(None, dict(inputs)), strict=True)))
    return {name: relative_difference(value, runs[1][name]) for name, value in runs[0].items()}
