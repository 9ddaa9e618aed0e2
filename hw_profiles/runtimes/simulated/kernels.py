"""The simulated device's arithmetic: which nodes run together, and the cost of a kernel."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from hw_profiles.errors import InvalidInput

_HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Op types of the nodes that a heavy kernel absorbs after it: at most one node from each row, in this order.
_TAIL = (
    frozenset({"BatchNormalization"}),
    frozenset({"Add", "Sum"}),
    frozenset({"Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSwish", "HardSigmoid"}),
)
_FREE = frozenset({"Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Constant"})

CONV_MACS_PER_US = 40_000.0
GROUPED_MACS_PER_US = 10_000.0
MATMUL_MACS_PER_US = 20_000.0
BYTES_PER_US = 20_000.0
KERNEL_US = 0.8
# From SLOW_FROM input channels on, a count that is not a multiple of the modulus leaves the fast path and costs
# SLOW_PATH times as much. This factor was chosen; it is higher than `slow_path` in the rows of
# benchmarks/predictor_accuracy.py.
SLOW_FROM, SLOW_PATH = 16, 1.8
# A partly filled last step of output channels must be cropped back.
CROP = 1.02
# int8 does INT8_SPEED times the work in the same time; kernels of the same class differ by about SPREAD. Both were
# chosen; SPREAD is smaller than on the device of benchmarks/predictor_accuracy.py (docs/benchmarks.md).
INT8_SPEED = 2.0
SPREAD = 0.01


class Shapes:
    """The shapes and item sizes of a model's tensors, found by shape inference; symbolic sizes count as 1."""

    def __init__(self, model: onnx.ModelProto) -> None:
        try:
            graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        except onnx.shape_inference.InferenceError as error:
            raise InvalidInput("model", model.graph.name, f"shape inference failed: {error}") from error
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._itemsize: dict[str, int] = {}
        self.constants = {tensor.name for tensor in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            self._add(value.name, [int(d.dim_value) or 1 for d in tensor.shape.dim], tensor.elem_type)
        for initializer in graph.initializer:
            self._add(initializer.name, initializer.dims, initializer.data_type)

    def _add(self, name: str, shape: Sequence[int], elem_type: int) -> None:
        self._shapes[name] = tuple(shape)
        self._itemsize[name] = helper.tensor_dtype_to_np_dtype(elem_type).itemsize

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise InvalidInput("model", name, "the shape of this tensor is unknown")
        return self._shapes[name]

    def size_bytes(self, name: str) -> int:
        return math.prod(self[name]) * self._itemsize[name]


def patterns(graph: onnx.GraphProto) -> tuple[tuple[int, ...], ...]:
    """Return the indices of the nodes that run as one kernel.

    A conv or matrix product runs together with the batch norm, add and activation that follow it. Quantisation, and the
    widening of a stored weight, belong to the neighbouring kernel.
    """
    readers: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(graph.node):
        for name in node.input:
            readers[name].append(index)
    owner = {index: index for index in range(len(graph.node))}
    stored = {tensor.name for tensor in graph.initializer}
    widened = {i for i, node in enumerate(graph.node) if node.op_type == "Cast" and set(node.input) <= stored}
    levels = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for index, node in enumerate(graph.node):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or index in widened or owner[index] != index:
            continue
        end = index
        for row in _TAIL if node.op_type in _HEAVY else _TAIL[-1:] if levels & set(node.input) else ():
            end = _follow(graph, readers, owner, index, end, row)
        _follow(graph, readers, owner, index, end, frozenset({"QuantizeLinear"}))
    for index in reversed(range(len(graph.node))):
        following = readers.get(graph.node[index].output[0], [])
        if (graph.node[index].op_type == "DequantizeLinear" or index in widened) and following:
            owner[index] = owner[following[0]]
    sets: dict[int, list[int]] = defaultdict(list)
    for index in range(len(graph.node)):
        sets[owner[index]].append(index)
    return tuple(tuple(indices) for _, indices in sorted(sets.items()))


def _follow(
    graph: onnx.GraphProto,
    readers: dict[str, list[int]],
    owner: dict[int, int],
    kernel: int,
    end: int,
    op_types: frozenset[str],
) -> int:
    """Add the only reader of `end` to `kernel` if it has one of these types; return the kernel's new end."""
    following = readers.get(graph.node[end].output[0], [])
    if len(following) != 1 or graph.node[following[0]].op_type not in op_types:
        return end
    if owner[following[0]] != following[0]:
        return end
    owner[following[0]] = kernel
    return following[0]


def kernel_us(nodes: Sequence[onnx.NodeProto], shapes: Shapes, out_step: int, in_modulus: int) -> float:
    """Return the cost of one kernel in microseconds."""
    if all(node.op_type in _FREE for node in nodes):
        return 0.0
    heavy = next((node for node in nodes if node.op_type in _HEAVY), None)
    if heavy is None:
        cost_us = _moved_us(nodes, shapes)
    elif heavy.op_type in ("Conv", "ConvTranspose"):
        cost_us = _conv_us(heavy, shapes, out_step, in_modulus)
    else:
        cost_us = _matmul_us(heavy, shapes)
    quantised = any(node.op_type == "DequantizeLinear" for node in nodes)
    return KERNEL_US + cost_us / (INT8_SPEED if quantised else 1.0) * _spread(nodes, shapes)


def _conv_us(node: onnx.NodeProto, shapes: Shapes, out_step: int, in_modulus: int) -> float:
    weight, result = shapes[node.input[1]], shapes[node.output[0]]
    groups = next((int(a.i) for a in node.attribute if a.name == "group"), 1)
    window = math.prod(result[2:]) * result[0] * math.prod(weight[2:])
    if groups > 1:
        return window * _ceil(weight[0], out_step) * weight[1] / GROUPED_MACS_PER_US
    into, out = shapes[node.input[0]][1], result[1]
    slow = into >= SLOW_FROM and into % in_modulus != 0
    paid = into if into < SLOW_FROM or slow else _ceil(into, out_step)
    factor = (SLOW_PATH if slow else 1.0) * (CROP if out % out_step else 1.0)
    return factor * window * paid * _ceil(out, out_step) / CONV_MACS_PER_US


def _matmul_us(node: onnx.NodeProto, shapes: Shapes) -> float:
    weight = shapes[node.input[1]]
    columns = shapes[node.output[0]][-1]
    rows = math.prod(weight) // max(columns, 1)
    return math.prod(shapes[node.output[0]]) * rows / MATMUL_MACS_PER_US


def _moved_us(nodes: Sequence[onnx.NodeProto], shapes: Shapes) -> float:
    inner = {name for node in nodes for name in node.output}
    read = {n for node in nodes for n in node.input if n and n not in inner and n not in shapes.constants}
    return sum(shapes.size_bytes(name) for name in read | set(nodes[-1].output[:1])) / BYTES_PER_US


def _spread(nodes: Sequence[onnx.NodeProto], shapes: Shapes) -> float:
    """Return a factor near 1 that is always the same for a kernel with these shapes."""
    facts = [(node.op_type, [shapes[name] for name in node.input if name]) for node in nodes]
    seed = int(hashlib.sha256(repr(facts).encode()).hexdigest()[:16], 16)
    return 1.0 + SPREAD * float(np.random.default_rng(seed).standard_normal())


def _ceil(count: int, step: int) -> int:
    return -(-count // step) * step
