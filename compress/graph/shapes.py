"""Shapes: the type of every tensor, from strict shape inference at batches 1 and 3, or from a real run."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.errors import InvalidInput
from compress.graph.onnxruntime import run_onnxruntime
from compress.network import Network, Node, TensorType, node_proto

# Small integer constants determine shapes (Reshape, Slice, Pad): shape inference must see their values.
SHAPE_CONSTANT_MAX = 1024

Shape: TypeAlias = "tuple[int | None, ...]"


def infer_types(network: Network) -> Network:
    """Return the network with the type of every activation, by strict shape inference at batches 1 and 3.

    Raises:
        InvalidInput: shape inference refuses the graph.
    """
    one, three = inferred(network, 1), inferred(network, 3)
    missing = [
        name
        for node in network.nodes
        for name in node.outputs
        if name and (name not in one or None in one[name][0] or name not in three or None in three[name][0])
    ]
    if missing:
        one |= _run_shapes(network, missing, 1)
        three |= _run_shapes(network, missing, 3)
    types = {name: _type(one[name], three[name]) for name in one if name in three}
    outputs = {name: types[name] for name in network.outputs}
    return replace(network, types=types, outputs=outputs)


def _type(one: tuple[Shape, str], three: tuple[Shape, str]) -> TensorType:
    axes = [axis for axis, (a, b) in enumerate(zip(one[0], three[0], strict=True)) if a != b]
    shape = tuple(-1 if size is None else size for size in one[0])
    return TensorType(shape, one[1], axes[0] if axes else None)


def inferred(network: Network, batch: int) -> dict[str, tuple[Shape, str]]:
    """Return the shapes and dtypes at this batch of all activations for which onnx can infer them."""
    try:
        return _shapes(network, batch, strict=True)
    except Exception as error:  # onnx raises InferenceError, and others for broken attributes
        mixing = _mixing(network) if batch > 1 else None
        if mixing is not None:
            raise InvalidInput(
                "file",
                mixing.name,
                f"the graph mixes the batch with other axes at node {mixing.name!r} ({mixing.op_type}), so that it "
                "takes only one sample: export with Flatten(1), or a Reshape that keeps the batch first",
            ) from error
        raise InvalidInput("file", batch, f"shapes do not fit at batch {batch}: {str(error)[:300]}") from error


def _mixing(network: Network) -> Node | None:
    """Return the first node that merges the batch with other axes; None if there is none."""
    one, three = _shapes(network, 1, strict=False), _shapes(network, 3, strict=False)
    for node in network.nodes:
        x, y = node.input(0), node.outputs[0]
        if node.op_type in ("Flatten", "Reshape") and {x, y} <= one.keys() & three.keys():
            before, after = (_grown(one[name][0], three[name][0]) for name in (x, y))
            if before == 1 and after is not None and after > 1:
                return node
    return None


def _grown(at_one: Shape, at_three: Shape) -> int | None:
    """Return the size at batch 1 of the axis that grows with the batch."""
    return next((a for a, b in zip(at_one, at_three, strict=True) if a != b), None)


def _shapes(network: Network, batch: int, *, strict: bool) -> dict[str, tuple[Shape, str]]:
    inferred = onnx.shape_inference.infer_shapes(
        _skeleton(network, batch), check_type=strict, strict_mode=strict, data_prop=True
    )
    found: dict[str, tuple[Shape, str]] = {}
    graph = inferred.graph
    for value in (*graph.value_info, *graph.output, *graph.input):
        kind = value.type.tensor_type
        if value.name in network.constants or not kind.elem_type or not kind.HasField("shape"):
            continue
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
        found[value.name] = (shape, str(helper.tensor_dtype_to_np_dtype(kind.elem_type)))
    return found


def _skeleton(network: Network, batch: int) -> onnx.ModelProto:
    """Return the graph at a fixed batch. Large constants become typed inputs, so that inference copies no weights."""
    small = {n: v for n, v in network.constants.items() if v.dtype.kind in "iub" and v.size <= SHAPE_CONSTANT_MAX}
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype)), (batch, *kind.shape[1:])
        )
        for name, kind in network.inputs.items()
    ] + [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in network.constants.items()
        if name not in small
    ]
    graph = helper.make_graph(
        [node_proto(node) for node in network.nodes],
        "skeleton",
        inputs,
        [helper.make_empty_tensor_value_info(name) for name in network.outputs],
        [numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in small.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in network.opset.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=network.ir_version)


def _run_shapes(network: Network, names: list[str], batch: int) -> dict[str, tuple[Shape, str]]:
    """Return shapes that inference cannot know (ops of other domains), from a real run."""
    values = run_onnxruntime(network, np.zeros((batch, *network.input_shape), np.float32), names)
    return {name: (tuple(value.shape), str(value.dtype)) for name, value in values.items()}
