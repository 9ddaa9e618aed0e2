"""Features: columns that describe an op to predictors and people. Some are approximate, and they never identify an
op.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict, cast, get_type_hints

import numpy as np

from hw_profiles.errors import InvalidInput
from hw_profiles.ops import Op, OpNode

# Op types that a runtime folds into a neighbour, so that the same kernel runs with or without them.
FOLDED = frozenset({"BatchNormalization", "Identity", "Dropout", "QuantizeLinear", "DequantizeLinear", "Cast"})
CONV_TYPES = frozenset({"Conv", "ConvTranspose"})
MATMUL_TYPES = frozenset({"Gemm", "MatMul"})


class Features(TypedDict):
    """One row of columns. Channels, height and width are 0 if an op has none."""

    kind: str  # op types except folded ones: conv+relu, dwconv, gemm, add, ...
    in_channels: int
    out_channels: int
    kernel: int  # kernel height
    stride: int
    groups: int
    height: int  # output height
    width: int
    dtype: str  # dtype of the first activation
    macs: int
    weight_bytes: int
    io_bytes: int  # activations read and written
    shape_class: str  # hash of everything but channel counts; equal within a kernel class


def features_from_json(data: Mapping[str, Any]) -> Features:
    """Read the columns from their JSON form. Raises InvalidInput on missing, unknown or mistyped columns."""
    types = get_type_hints(Features)
    wrong = set(data) ^ set(types) or {n for n, t in types.items() if not isinstance(data[n], t)}
    if wrong:
        raise InvalidInput("features", sorted(wrong), "has missing, unknown or mistyped columns")
    return cast(Features, dict(data))


class _Main(NamedTuple):
    """The facts about an op's main node that the features need; `out_shape` includes the batch."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    groups: int
    out_shape: tuple[int, ...]
    macs: int


def main_node(op: Op) -> OpNode:
    """Return the first conv or matrix product of the block, else its first node that is not folded away."""
    heavy = [node for node in op.nodes if node.op_type in CONV_TYPES | MATMUL_TYPES]
    real = [node for node in op.nodes if node.op_type not in FOLDED]
    return (heavy or real or list(op.nodes))[0]


@lru_cache(maxsize=2**17)
def features_of(op: Op) -> Features:
    """Return the typed columns of an op, for predictors and people; they do not identify the op."""
    node = main_node(op)
    main = _conv(op, node) or _matmul(op, node) or _plain(op, node)
    spatial = main.out_shape[2:] if len(main.out_shape) == 4 else (0, 0)
    itemsize = np.dtype(op.inputs[0].dtype).itemsize if op.inputs else 4
    read = sum(spec.elements * np.dtype(spec.dtype).itemsize for spec in op.inputs)
    return Features(
        kind=_kind(op, main),
        in_channels=main.in_channels,
        out_channels=main.out_channels,
        kernel=main.kernel,
        stride=main.stride,
        groups=main.groups,
        height=spatial[0],
        width=spatial[1],
        dtype=op.inputs[0].dtype if op.inputs else "none",
        macs=main.macs,
        weight_bytes=sum(c.spec.elements * np.dtype(c.spec.dtype).itemsize for c in op.constants),
        io_bytes=read + math.prod(main.out_shape) * itemsize,
        shape_class=_shape_class(op, main),
    )


def _kind(op: Op, main: _Main) -> str:
    depthwise = main.groups > 1 and main.groups == main.in_channels
    prefix = "dw" if depthwise else "grouped" if main.groups > 1 else ""
    names = [
        prefix + node.op_type.lower() if node.op_type in CONV_TYPES else node.op_type.lower()
        for node in op.nodes
        if node.op_type not in FOLDED
    ]
    return "+".join(names or [node.op_type.lower() for node in op.nodes])


def _activation(op: Op, name: str) -> tuple[int, ...] | None:
    """Return the shape of the activation x<i> behind `name`, looking through DequantizeLinear; None for any other
    tensor.
    """
    made = {output: node for node in op.nodes for output in node.outputs}
    while name in made and made[name].op_type in FOLDED:
        name = made[name].inputs[0]
    return op.inputs[int(name[1:])].shape if name.startswith("x") else None


def weight_shape(op: Op, name: str) -> tuple[int, ...] | None:
    """Return the shape of the constant behind `name`, looking through DequantizeLinear; None for other tensors."""
    made = {output: node for node in op.nodes for output in node.outputs}
    while name in made and made[name].op_type in FOLDED:
        name = made[name].inputs[0]
    return op.constants[int(name[1:])].spec.shape if name.startswith("w") else None


def _conv(op: Op, node: OpNode) -> _Main | None:
    """Describe a Conv whose input has static height and width; transposed convolutions count as stride 1."""
    if node.op_type not in CONV_TYPES:
        return None
    entering, weight = _activation(op, node.inputs[0]), weight_shape(op, node.inputs[1])
    if entering is None or weight is None or len(entering) != 4 or len(weight) != 4:
        return None
    groups = int(node.attribute("group", 1))
    strides = node.attribute("strides", (1, 1))
    if node.op_type == "ConvTranspose":
        out_channels = weight[1] * groups
        spatial = [size * stride for size, stride in zip(entering[2:], strides, strict=True)]
    else:
        out_channels = weight[0]
        spatial = [_conv_size(node, entering[2 + axis], weight[2 + axis], axis) for axis in (0, 1)]
    out_shape = (entering[0], out_channels, *spatial)
    macs = math.prod(out_shape) * (entering[1] // groups) * weight[2] * weight[3]
    return _Main(entering[1], out_channels, weight[2], int(strides[0]), groups, out_shape, macs)


def _conv_size(node: OpNode, size: int, kernel: int, axis: int) -> int:
    stride = node.attribute("strides", (1, 1))[axis]
    if node.attribute("auto_pad", "NOTSET").startswith("SAME"):
        return int(-(-size // stride))
    pads = node.attribute("pads", (0, 0, 0, 0))
    reach = node.attribute("dilations", (1, 1))[axis] * (kernel - 1) + 1
    return int((size + pads[axis] + pads[axis + 2] - reach) // stride + 1)


def _matmul(op: Op, node: OpNode) -> _Main | None:
    if node.op_type not in MATMUL_TYPES:
        return None
    entering, weight = _activation(op, node.inputs[0]), weight_shape(op, node.inputs[1])
    if entering is None or weight is None or len(weight) != 2:
        return None
    rows, columns = weight[::-1] if node.attribute("transB", 0) else weight
    out_shape = (*entering[:-1], columns)
    return _Main(rows, columns, 1, 1, 1, out_shape, math.prod(out_shape) * rows)


def _plain(op: Op, node: OpNode) -> _Main:
    """Describe any other node. It has no MACs; its output is taken to be as large as its largest input (for Concat, as
    all inputs together).
    """
    shapes = [spec.shape for spec in op.inputs] or [(0,)]
    largest = max(shapes, key=math.prod)
    channels = largest[1] if len(largest) > 1 else 0
    if node.op_type == "Concat" and len(largest) > 1:
        largest = (largest[0], sum(shape[1] for shape in shapes if len(shape) > 1), *largest[2:])
    kernel = node.attribute("kernel_shape", (1,))[0]
    stride = node.attribute("strides", (1,))[0]
    out_shape = (*largest[:2], *(-(-size // stride) for size in largest[2:]))
    return _Main(channels, out_shape[1] if len(out_shape) > 1 else 0, kernel, stride, 1, out_shape, 0)


def _shape_class(op: Op, main: _Main) -> str:
    """Return a hash of the op without its channel counts: nodes, attributes, spatial sizes, producers, values."""
    wiped = op.to_json()
    # The group count stays, although it also reveals a channel count: kernels with different group counts differ.
    if main.groups > 1:
        wiped["groups"] = main.groups
    wiped["inputs"] = [[[len(spec.shape), *spec.shape[2:]], spec.dtype] for spec in op.inputs]
    wiped["constants"] = [
        [len(c.spec.shape), list(c.spec.shape[2:]), c.spec.dtype, data[2]]
        for c, data in zip(op.constants, wiped["constants"], strict=True)
    ]
    text = json.dumps(wiped, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
