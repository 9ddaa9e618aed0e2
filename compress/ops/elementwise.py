"""Elementwise ops: each channel of the output depends on the same channel of the inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops.row import Axes, Flow, Link, Row, TorchOp, channel_axis, freeze, same, scalar

Unary = Callable[[Tensor], Tensor]


def _bound(node: Node, network: Network, position: int, attribute: str) -> float | int | None:
    """Return a bound of Clip or None. Integer bounds stay integers: a float bound would turn the tensor into floats."""
    name = node.input(position)
    if not name:
        return node.get(attribute, None)  # type: ignore[no-any-return]  # an attribute's value is Any
    if name not in network.constants:
        raise Unsupported(f"{node.op_type} with a computed bound")
    return scalar(network.constants[name])


def _clip(node: Node, network: Network) -> TorchOp:
    low, high = _bound(node, network, 1, "min"), _bound(node, network, 2, "max")
    return lambda x, *_: x if low is None and high is None else x.clamp(low, high)


def _leaky_relu(node: Node, network: Network) -> TorchOp:
    slope = float(node.get("alpha", 0.01))
    return lambda x: F.leaky_relu(x, slope)


def _elu(node: Node, network: Network) -> TorchOp:
    alpha = float(node.get("alpha", 1.0))
    return lambda x: F.elu(x, alpha)


def _hard_sigmoid(node: Node, network: Network) -> TorchOp:
    alpha, beta = float(node.get("alpha", 0.2)), float(node.get("beta", 0.5))
    return lambda x: (alpha * x + beta).clamp(0.0, 1.0)


def _gelu(node: Node, network: Network) -> TorchOp:
    approximate = node.get("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


def _cast(node: Node, network: Network) -> TorchOp:
    name = str(helper.tensor_dtype_to_np_dtype(node.attributes["to"]))
    dtype = getattr(torch, name, None)
    if dtype is None:
        raise Unsupported(f"Cast to {name}")
    return lambda x: x.to(dtype)


def _dropout(node: Node, network: Network) -> TorchOp:
    if len([name for name in node.outputs if name]) > 1:
        raise Unsupported("Dropout whose mask is used")
    if node.input(2) and (node.input(2) not in network.constants or scalar(network.constants[node.input(2)])):
        raise Unsupported("Dropout in training mode: export the network in eval mode")
    return lambda x, *_: x  # an exported network is in eval mode; training here never uses dropout


def _plain(function: Callable[..., Tensor]) -> Callable[[Node, Network], TorchOp]:
    return lambda node, network: function


def _flow_unary(node: Node, network: Network, axes: Axes) -> Flow:
    x, y = node.input(0), node.outputs[0]
    axis = channel_axis(x, network, axes)
    if axis is None:
        return Flow({y: None})
    return Flow({y: axis}, (same((x, axis), (y, axis), network.shape(x)[axis]),))


def _flow_broadcast(node: Node, network: Network, axes: Axes) -> Flow:
    """Link the inputs along their common channel axis, counted from the right as in broadcasting."""
    y = node.outputs[0]
    rank = len(network.shape(y))
    seen = {}
    for name in node.inputs:
        axis = None if name in network.constants else channel_axis(name, network, axes)
        if axis is not None:
            seen[name] = axis + rank - len(network.shape(name))
    if not seen:
        return Flow({y: None})
    # An input with one channel is broadcast to all channels: it determines no axis and ties no channels.
    wide = {axis for name, axis in seen.items() if network.shape(name)[axis - rank] > 1}
    if len(wide) > 1:
        raise Unsupported(f"{node.op_type} of tensors whose channels lie on different axes")
    axis = wide.pop() if wide else next(iter(seen.values()))
    return Flow({y: axis}, tuple(_broadcast_links(node, network, y, axis)))


def _broadcast_links(node: Node, network: Network, y: str, axis: int) -> list[Link]:
    rank, width = len(network.shape(y)), network.shape(y)[axis]
    links = []
    for name in dict.fromkeys(node.inputs):
        shape = network.shape(name)
        own = axis - rank + len(shape)
        if own >= 0 and shape[own] == width:
            links.append(same((name, own), (y, axis), width))
    return links


def _build_prelu(node: Node, network: Network) -> TorchOp:
    return lambda x, slope: torch.where(x >= 0, x, slope * x)


def _softmax(function: Callable[..., Tensor]) -> Callable[[Node, Network], TorchOp]:
    def build(node: Node, network: Network) -> TorchOp:
        axis = node.get("axis", -1)
        return lambda x: function(x, dim=axis)

    return build


def _flow_softmax(node: Node, network: Network, axes: Axes) -> Flow:
    x, y = node.input(0), node.outputs[0]
    axis = channel_axis(x, network, axes)
    if axis is not None and node.get("axis", -1) % len(network.shape(x)) == axis:
        return Flow({y: axis}, frozen=freeze((x, y), f"{node.op_type} mixes the channels"))
    return _flow_unary(node, network, axes)


_UNARY: dict[str, Unary] = {
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "HardSwish": F.hardswish,
    "Softplus": F.softplus,
    "Mish": F.mish,
    "Exp": torch.exp,
    "Sqrt": torch.sqrt,
    "Erf": torch.erf,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Identity": lambda x: x,
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
}


def _build_div(node: Node, network: Network) -> TorchOp:
    if not network.types[node.outputs[0]].dtype.startswith("float"):
        raise Unsupported("Div of integers")
    return torch.div


def _build_pow(node: Node, network: Network) -> TorchOp:
    exponent = network.constants.get(node.input(1))
    if exponent is None or node.input(0) in network.constants:
        raise Unsupported("Pow with a computed exponent")
    power = torch.from_numpy(np.array(exponent))
    return lambda x, *_: torch.pow(x, power).to(x.dtype)


ROWS = (
    *(Row((name,), _plain(function), _flow_unary) for name, function in _UNARY.items()),
    Row(("Clip",), _clip, _flow_unary),
    Row(("LeakyRelu",), _leaky_relu, _flow_unary),
    Row(("Elu",), _elu, _flow_unary),
    Row(("HardSigmoid",), _hard_sigmoid, _flow_unary),
    Row(("Gelu",), _gelu, _flow_unary),
    Row(("Cast",), _cast, _flow_unary),
    Row(("Dropout",), _dropout, _flow_unary),
    *(Row((name,), _plain(function), _flow_broadcast, trained=(0, 1)) for name, function in _BINARY.items()),
    Row(("Pow",), _build_pow, _flow_broadcast),
    Row(("Div",), _build_div, _flow_broadcast, trained=(0, 1)),
    Row(("PRelu",), _build_prelu, _flow_broadcast, trained=(1,)),
    Row(("Softmax",), _softmax(F.softmax), _flow_softmax),
    Row(("LogSoftmax",), _softmax(F.log_softmax), _flow_softmax),
)
