"""Quantise to static int8, with QuantizeLinear / DequantizeLinear pairs that runtimes fuse into integer kernels.

Weights are symmetric int8 with a scale per output channel, activations have 8 bits with a scale and a zero point per
tensor, and biases are int32 at the product of both scales (Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compress.graph.edit import edited, replaced
from compress.graph.fold import output_axis
from compress.graph.names import Names
from compress.network import Array, Network, Node
from compress.quantising.calibration import Range
from compress.quantising.precision import Precision

Activations: TypeAlias = Literal["uint8", "int8"]
LOWEST: Mapping[str, int] = {"uint8": 0, "int8": -128}
# A bias is an int32 in units of input scale x weight scale; half of the range is reserved for the sum itself.
BIAS_MAX = 2**30


@dataclass(frozen=True)
class Scale:
    """Scale of a tensor: real = scale * (level - zero_point); levels have the zero point's dtype."""

    scale: Array
    zero_point: Array
    axis: int | None = None


def activation_scale(seen: Range, dtype: Activations = "uint8") -> Scale:
    """Return the scale with 256 levels over the range; one level is exactly zero."""
    span = seen.high - seen.low
    step = np.float32(span / 255 if span > 0 else 1.0)
    zero = round(-seen.low / float(step)) + LOWEST[dtype]
    return Scale(np.asarray(step, np.float32), np.asarray(zero, dtype))


def weight_scale(weight: Array, axis: int, bits: int = 8, bias: Array | None = None, input_scale: float = 1.0) -> Scale:
    """Return the symmetric scale with one step per output channel; a channel's largest weight gets the largest level.

    Args:
        axis: the output channels' axis of the weight.
        bits: 7 leaves headroom for processors whose int8 sums saturate (x86 without VNNI).
        bias: (C,); a channel whose bias is huge compared with its weights gets a coarser step, so that the bias
            fits an int32.
    """
    others = tuple(a for a in range(weight.ndim) if a != axis)
    step = np.abs(weight).max(axis=others).astype(np.float64) / (2 ** (bits - 1) - 1)
    if bias is not None:
        step = np.maximum(step, np.abs(bias.astype(np.float64)) / (input_scale * BIAS_MAX))
    step = np.where(step > np.finfo(np.float32).tiny, step, 1.0).astype(np.float32)
    return Scale(step, np.zeros(len(step), np.int8), axis)


def quantised_weight(weight: Array, scale: Scale) -> NDArray[np.int8]:
    """Return the levels of the weight, in the same shape."""
    shape = [1] * weight.ndim
    shape[scale.axis or 0] = -1
    return np.clip(np.rint(weight / scale.scale.reshape(shape)), -127, 127).astype(np.int8)


def weight_axis(layer: Node) -> int:
    """Return the output channels' axis in the weight of a Conv, Gemm or MatMul."""
    return 1 if layer.op_type == "MatMul" else output_axis(layer)


def on_grid(weight: Array, axis: int, bits: int = 8) -> Array:
    """Return the weight rounded to the grid of `weight_scale`; dtype and shape do not change."""
    scale = weight_scale(weight, axis, bits)
    shape = [1] * weight.ndim
    shape[axis] = -1
    return (quantised_weight(weight, scale) * scale.scale.reshape(shape).astype(np.float64)).astype(weight.dtype)


def quantise(
    network: Network,
    precision: Precision,
    ranges: Mapping[str, Range],
    activations: Activations = "uint8",
    bits_w: int = 8,
) -> Network:
    """Return the network with the chosen nodes in int8; inputs, outputs and names of activations do not change.

    A warning of the result names each layer that stays in floating point, with the reason.

    Args:
        precision: the nodes and tensors to quantise, see `compress.quantising.precision.choose`.
        ranges: range of every tensor in `precision.calibrated`, see `compress.quantising.calibration.calibrate`.

    Raises:
        InvalidInput: the result is not a network that onnxruntime runs.
    """
    if not precision.nodes:
        return network
    edit = _Edit(network, precision, _scales(network, precision, ranges, activations), bits_w)
    return one_reader_each(edit.result())


def one_reader_each(network: Network) -> Network:
    """Copy every DequantizeLinear that several nodes read, so that each reader has its own.

    Runtimes do the same before they fuse (onnxruntime fuses a node with its own pairs). If it is done here, a kernel in
    the network is the same as the kernel that is timed alone.
    """
    nodes, constants, names = {node.name: node for node in network.nodes}, dict(network.constants), Names(network)
    for shared in network.nodes:
        if shared.op_type != "DequantizeLinear" or shared.input(0) in network.constants:
            continue
        for number, reader in enumerate(network.consumers(shared.outputs[0])[1:], start=2):
            copy = names.new(f"{shared.outputs[0]}/{number}")
            inputs = (shared.input(0), *(names.new(f"{name}/{number}") for name in shared.inputs[1:]))
            constants |= {new: network.constants[old] for old, new in zip(shared.inputs[1:], inputs[1:], strict=True)}
            nodes[copy] = replace(shared, name=copy, inputs=inputs, outputs=(copy,))
            swapped = tuple(copy if name == shared.outputs[0] else name for name in nodes[reader.name].inputs)
            nodes[reader.name] = replace(nodes[reader.name], inputs=swapped)
    return edited(network, nodes.values(), constants)


def _scales(
    network: Network, precision: Precision, ranges: Mapping[str, Range], activations: Activations
) -> dict[str, Scale]:
    """Return the scale of each quantised tensor. Absorbed clamps bound ranges; ops that move data share one scale."""
    bounded = dict(ranges)
    for node in network.nodes:
        if node.name in precision.absorbed:
            output = node.outputs[0]
            bounded[output] = ranges[output].clipped(*_bounds(network, node))
    tensors = {**precision.read, **precision.made}
    return {name: activation_scale(bounded[source], activations) for name, source in tensors.items()}


def _bounds(network: Network, clamp: Node) -> tuple[float, float]:
    if clamp.op_type == "Relu":
        return 0.0, np.inf
    low, high = clamp.input(1), clamp.input(2)
    return (
        float(network.constants[low].reshape(-1)[0]) if low else -np.inf,
        float(network.constants[high].reshape(-1)[0]) if high else np.inf,
    )


class _Edit:
    def __init__(self, network: Network, precision: Precision, scales: Mapping[str, Scale], bits_w: int) -> None:
        self.network = network
        self.precision = precision
        self.scales = scales
        self.bits_w = bits_w
        self.new = Names(network).new
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}

    def result(self) -> Network:
        seen = {name: self._pair(name, name, self.new(f"{name}/dequantised")) for name in self.precision.read}
        gone = [*self.precision.nodes, *self.precision.absorbed]
        for node in self.network.nodes:
            if node.name in self.precision.nodes:
                inputs = (seen.get(name, name) for name in node.inputs)
                self.nodes.append(self._made(self._weighted(replace(node, inputs=tuple(inputs)), node.inputs[0])))
        return replaced(self.network, gone, self.nodes, self.constants)

    def _made(self, node: Node) -> Node:
        """Return the node with its output renamed, because the pair behind it produces the tensor of the old name."""
        output = node.outputs[0]
        clamp = self.network.sole_consumer(output)
        absorbed = clamp is not None and clamp.name in self.precision.absorbed
        target = clamp.outputs[0] if clamp is not None and absorbed else output
        if target not in self.precision.made:
            return node
        raw = output if absorbed else self.new(f"{output}/float")
        self._pair(raw, target, target)
        return replace(node, outputs=(raw, *node.outputs[1:]))

    def _weighted(self, node: Node, read: str) -> Node:
        """Return the node with integer weight and bias, each behind a DequantizeLinear."""
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            return node
        weight_name, bias_name = node.inputs[1], node.input(2)
        weight = self.network.constants[weight_name]
        bias = self.network.constants[bias_name].reshape(-1) if bias_name else None
        step = float(self.scales[read].scale)
        scale = weight_scale(weight, weight_axis(node), self.bits_w, bias, step)
        inputs = [node.inputs[0], self._dequantised(f"{node.name}/weight", quantised_weight(weight, scale), scale)]
        if bias is not None:
            product = (scale.scale * np.float32(step)).astype(np.float32)
            levels = np.rint(bias.astype(np.float64) / product).astype(np.int32)
            inputs.append(
                self._dequantised(f"{node.name}/bias", levels, Scale(product, np.zeros(len(bias), np.int32), 0))
            )
        return replace(node, inputs=tuple(inputs))

    def _dequantised(self, name: str, levels: Array, scale: Scale) -> str:
        own, target = self.new(f"{name}/levels"), self.new(f"{name}/float")
        self.constants[own] = levels
        self.nodes.append(self._linear("DequantizeLinear", own, target, scale))
        return target

    def _pair(self, source: str, tensor: str, target: str) -> str:
        """Convert `source` to 8 bits with the scale of `tensor`, and back to float under the name `target`."""
        scale = self.scales[tensor]
        levels = self.new(f"{tensor}/quantised")
        self.nodes.append(self._linear("QuantizeLinear", source, levels, scale))
        self.nodes.append(self._linear("DequantizeLinear", levels, target, scale))
        return target

    def _linear(self, op_type: str, source: str, target: str, scale: Scale) -> Node:
        name = self.new(f"{target}/{op_type}")
        step, zero = self.new(f"{name}/scale"), self.new(f"{name}/zero_point")
        self.constants |= {step: scale.scale, zero: scale.zero_point}
        inputs = (source, step, zero)
        axis = {} if scale.axis is None else {"axis": scale.axis}
        return Node(op_type, name, inputs, (target,), axis)
