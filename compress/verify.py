"""Verify: an import is checked, not trusted. torch and onnxruntime must agree, or the first differing node is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import Disagreement, InvalidInput
from compress.network import Array, Network, TensorType

if TYPE_CHECKING:
    import onnxruntime

TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "float64": 1e-6}


def session(model: bytes, *, threads: int = 1, optimise: bool = True) -> onnxruntime.InferenceSession:
    """An onnxruntime CPU session of an ONNX file, quiet.

    Raises:
        InvalidInput: onnxruntime refuses the file.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as in compress/__init__.py
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises one class per status code
        raise InvalidInput(f"onnxruntime refuses the file: {str(error)[:300]}", field="file") from error


def run_onnxruntime(
    network: Network, images: NDArray[np.float32], names: Sequence[str] | None = None
) -> dict[str, Array]:
    """Run the network in onnxruntime.

    Args:
        images: (N, *input_shape) float32.
        names: the tensors wanted; all outputs where None. Optimisation is off where inner tensors are asked for.

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
        raise InvalidInput(f"onnxruntime fails on the file: {str(error)[:300]}", field="file") from error
    return dict(zip(wanted, values, strict=True))


def _with_untyped_outputs(network: Network) -> bytes:
    import onnx

    proto = network.to_proto()
    for output in list(proto.graph.output):
        if output.name not in network.types:
            proto.graph.output.remove(output)
            proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(output.name))
    return bytes(proto.SerializeToString())


def relative_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Largest absolute difference over the scale (largest magnitude, at least 1e-6) of `b`; inf for NaN or shape."""
    if a.shape != b.shape:
        return float("inf")
    if a.size == 0:
        return 0.0
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a64).all() and np.isfinite(b64).all()):
        return 0.0 if np.array_equal(a64, b64, equal_nan=True) else float("inf")
    return float(np.abs(a64 - b64).max() / max(np.abs(b64).max(), 1e-6))


def verify(network: Network, samples: NDArray[np.float32]) -> float:
    """Check that torch, as we read the file, and onnxruntime agree; at batch 1 and on the whole sample.

    Args:
        samples: (N, *input_shape) float32, N >= 3, real data where there is some.

    Returns:
        The largest relative difference of the outputs.

    Raises:
        Disagreement: naming the first node whose output differs by more than the tolerance of its dtype.
        InvalidInput: one of the two cannot run the file.
    """
    import torch

    from compress.module import TorchNetwork

    module = TorchNetwork(network).eval()
    worst = 0.0
    for batch in (samples[:1], samples):
        expected = run_onnxruntime(network, batch)
        with torch.no_grad():
            actual = module.run(torch.from_numpy(batch), list(network.outputs))
        for name, reference in expected.items():
            difference = relative_difference(actual[name].numpy(), reference)
            worst = max(worst, difference)
            if difference > TOLERANCE.get(str(reference.dtype), 0.0):
                raise _first_difference(network, module, batch, name, difference)
    return worst


def _first_difference(
    network: Network, module: Any, batch: NDArray[np.float32], output: str, difference: float
) -> Disagreement:
    import torch

    names = [name for node in network.nodes for name in node.outputs if name and name in network.types]
    expected = run_onnxruntime(network, batch, names)
    with torch.no_grad():
        actual = module.run(torch.from_numpy(batch), names)
    for node in network.nodes:
        for name in node.outputs:
            if name not in expected:
                continue
            seen = relative_difference(actual[name].numpy(), expected[name])
            tolerance = TOLERANCE.get(str(expected[name].dtype), 0.0)
            if seen > tolerance:
                return Disagreement(node.name, node.op_type, seen, tolerance)
    last = network.producer(output)
    return Disagreement(last.name if last else output, last.op_type if last else "", difference, TOLERANCE["float32"])
