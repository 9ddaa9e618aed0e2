"""Pooling, and means over spatial axes."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops.conv import spatial_pads, torch_pads
from compress.ops.row import Axes, Flow, Row, TorchOp, channel_axis, freeze, same

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _window(node: Node, network: Network) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[int]]:
    """Return kernel, strides, dilations and the pads (in torch's order) that give exactly ONNX's output size."""
    kernel = tuple(node.attributes["kernel_shape"])
    strides = tuple(node.get("strides", (1,) * len(kernel)))
    dilations = tuple(node.get("dilations", (1,) * len(kernel)))
    if len(kernel) not in _MAX or len([name for name in node.outputs if name]) > 1:
        raise Unsupported(f"{node.op_type} of rank {len(kernel)} or with indices")
    return kernel, strides, dilations, torch_pads(spatial_pads(node, network, kernel, strides, dilations))


def _overhang(
    node: Node,
    network: Network,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: list[int],
) -> list[int]:
    """Return the extra end padding (torch order) that ceil_mode reads past the padded input."""
    extra = []
    count = len(kernel)
    for axis in reversed(range(count)):
        begin, end = pads[2 * (count - 1 - axis)], pads[2 * (count - 1 - axis) + 1]
        size = network.shape(node.input(0))[2 + axis] + begin + end
        out = network.shape(node.outputs[0])[2 + axis]
        needed = (out - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        extra += [0, max(needed - size, 0)]
    return extra


def _build_max(node: Node, network: Network) -> TorchOp:
    kernel, strides, dilations, pads = _window(node, network)
    extra = _overhang(node, network, kernel, strides, dilations, pads)
    total = [a + b for a, b in zip(pads, extra, strict=True)]
    pool = _MAX[len(kernel)]

    def run(x: Tensor) -> Tensor:
        if any(total):
            x = F.pad(x, total, value=float("-inf"))
        return pool(x, kernel, strides, 0, dilations)

    return run


def _build_average(node: Node, network: Network) -> TorchOp:
    kernel, strides, dilations, pads = _window(node, network)
    if any(d != 1 for d in dilations):
        raise Unsupported("AveragePool with dilations")
    extra = _overhang(node, network, kernel, strides, dilations, pads)
    pool, size = _AVERAGE[len(kernel)], prod(kernel)
    counted = bool(node.get("count_include_pad", 0))

    def run(x: Tensor) -> Tensor:
        if not any(pads) and not any(extra):
            return pool(x, kernel, strides)
        # The mean covers the cells of the input and, with count_include_pad, its pads, but never ceil_mode's overhang.
        cells = F.pad(torch.ones_like(x[:1, :1]), pads, value=1.0 if counted else 0.0)
        cells = pool(F.pad(cells, extra), kernel, strides) * size
        return pool(F.pad(F.pad(x, pads), extra), kernel, strides) * size / cells

    return run


def _flow_spatial(node: Node, network: Network, axes: Axes) -> Flow:
    x, y = node.input(0), node.outputs[0]
    return Flow({y: 1}, (same((x, 1), (y, 1), network.shape(x)[1]),))


def _build_global(average: bool) -> TorchOp:
    def run(x: Tensor) -> Tensor:
        spatial = tuple(range(2, x.ndim))
        return x.mean(spatial, keepdim=True) if average else x.amax(spatial, keepdim=True)

    return run


def reduced_axes(node: Node, network: Network) -> tuple[int, ...]:
    """Return the axes that a Reduce op reduces, non-negative. Raises Unsupported if they are computed."""
    rank = len(network.shape(node.input(0)))
    found = node.get("axes", None)
    if node.input(1):
        if node.input(1) not in network.constants:
            raise Unsupported(f"{node.op_type} over computed axes")
        found = network.constants[node.input(1)].tolist()
    if not found:
        return () if node.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis % rank for axis in found))


def _build_mean(node: Node, network: Network) -> TorchOp:
    folded, keep = reduced_axes(node, network), bool(node.get("keepdims", 1))
    return lambda x, *_: x.mean(folded, keepdim=keep) if folded else x


def _flow_mean(node: Node, network: Network, axes: Axes) -> Flow:
    x, y = node.input(0), node.outputs[0]
    axis, folded = channel_axis(x, network, axes), reduced_axes(node, network)
    if axis is None:
        return Flow({y: None})
    if axis in folded:
        return Flow({y: None}, frozen=freeze((x,), f"{node.op_type} averages over the channels"))
    after = axis if node.get("keepdims", 1) else axis - sum(other < axis for other in folded)
    return Flow({y: after}, (same((x, axis), (y, after), network.shape(x)[axis]),))


ROWS = (
    Row(("MaxPool",), _build_max, _flow_spatial),
    Row(("AveragePool",), _build_average, _flow_spatial),
    Row(("GlobalAveragePool",), lambda node, network: _build_global(True), _flow_spatial),
    Row(("GlobalMaxPool",), lambda node, network: _build_global(False), _flow_spatial),
    Row(("ReduceMean",), _build_mean, _flow_mean),
)
