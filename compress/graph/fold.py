"""Fold batch norms into the convolution or linear layer in front of them, without loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from compress.errors import NotTheSame
from compress.graph.edit import edited
from compress.graph.names import Names
from compress.graph.onnxruntime import run_onnxruntime, runtime_noise
from compress.importing.agreement import judge
from compress.network import Array, Network, Node

EPSILON = 1e-5  # ONNX's default for BatchNormalization


@dataclass(frozen=True)
class Norm:
    """A layer and the batch norm that is its only reader and can be folded into it.

    Attributes:
        layer: Conv, ConvTranspose or Gemm.
        node: the BatchNormalization.
        gamma, beta: (C,) float64; the norm computes gamma * (x - mean) / deviation + beta per channel.
        mean, deviation: (C,) float64, deviation = sqrt(variance + epsilon).
    """

    layer: Node
    node: Node
    gamma: NDArray[np.float64]
    beta: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @property
    def factor(self) -> NDArray[np.float64]:
        """Factor (C,) that folding multiplies the layer's weights by."""
        return self.gamma / self.deviation

    @property
    def offset(self) -> NDArray[np.float64]:
        """Offset (C,) that folding adds after the factor."""
        return self.beta - self.mean * self.factor


def norms(network: Network) -> tuple[Norm, ...]:
    """Return the batch norms that can be folded: the only readers of a layer whose weight is constant."""
    return tuple(_found(network))


def _found(network: Network) -> Iterator[Norm]:
    for node in network.nodes:
        if node.op_type != "BatchNormalization" or node.get("training_mode", 0):
            continue
        layer = network.producer(node.inputs[0])
        if layer is None or network.sole_consumer(layer.outputs[0]) is not node or not foldable(network, layer):
            continue
        gamma, beta, mean, variance = (network.constants[name].astype(np.float64) for name in node.inputs[1:5])
        deviation = np.sqrt(variance + node.get("epsilon", EPSILON))
        yield Norm(layer, node, gamma, beta, mean, deviation)


def foldable(network: Network, layer: Node) -> bool:
    """Return whether the layer's weight and bias are constants that can take a factor and an offset per channel."""
    if layer.op_type not in ("Conv", "ConvTranspose", "Gemm") or layer.input(1) not in network.constants:
        return False
    if layer.input(2) and layer.input(2) not in network.constants:
        return False
    if layer.op_type == "ConvTranspose":
        return bool(layer.get("group", 1) == 1)
    return layer.op_type == "Conv" or layer.get("beta", 1.0) == 1.0


def output_axis(layer: Node) -> int:
    """Return the axis of the output channels in the layer's weight."""
    if layer.op_type == "Gemm":
        return 0 if layer.get("transB", 0) else 1
    return 1 if layer.op_type == "ConvTranspose" else 0


def scaled(
    network: Network, layer: Node, factor: NDArray[np.float64], offset: NDArray[np.float64]
) -> tuple[Node, dict[str, Array]]:
    """Return the layer changed to give `factor * output + offset` per channel, and the constants that it then reads.

    Args:
        factor, offset: (C,).
    """
    weight = network.constants[layer.inputs[1]]
    shape = [1] * weight.ndim
    shape[output_axis(layer)] = -1
    bias = network.constants[layer.inputs[2]].reshape(-1) if layer.input(2) else np.zeros(1)
    weight_name = _own_name(network, layer, 1, "weight")
    bias_name = _own_name(network, layer, 2, "bias")
    constants = {
        weight_name: (weight * factor.reshape(shape)).astype(weight.dtype),
        bias_name: (bias * factor + offset).astype(weight.dtype),
    }
    return replace(layer, inputs=(layer.inputs[0], weight_name, bias_name)), constants


def _own_name(network: Network, layer: Node, position: int, role: str) -> str:
    """Return the constant's name if only this layer reads it, else a new name; thus a tied weight is not changed."""
    name = layer.input(position)
    if name and network.sole_consumer(name) is layer:
        return name
    return Names(network).new(f"{layer.name}/{role}")


def fold_norms(network: Network) -> Network:
    """Return an equivalent network without foldable batch norms. The outputs of these norms keep their names.

    Weights that the file stored as float16 are rounded to float16 again.

    Raises:
        InvalidInput: onnxruntime does not run the result, or its outputs differ.
    """
    found = norms(network)
    if not found:
        return network
    folded, constants, halves = dict[str, Node](), dict(network.constants), set(network.halves)
    for norm in found:
        layer, own = scaled(network, norm.layer, norm.factor, norm.offset)
        folded[layer.name] = replace(layer, outputs=norm.node.outputs[:1])
        constants |= own
        halves |= {layer.inputs[1]} if norm.layer.inputs[1] in halves else set()
    gone = {norm.node.name for norm in found}
    # Edit in place: groups are named after the first layer in execution order, which must not change.
    nodes = [folded.get(node.name, node) for node in network.nodes if node.name not in gone]
    result = edited(replace(network, halves=frozenset(halves)), nodes, constants)
    noise = np.random.default_rng(0).standard_normal((2, *network.input_shape), np.float32)
    check_same_function(result, network, noise, "batch norms cannot be folded without loss")
    return result.rounded()


def check_same_function(changed: Network, original: Network, images: NDArray[np.float32], said: str) -> None:
    """Compare the outputs of an edited network with the original's in onnxruntime; the edit should not change them.

    Args:
        said: beginning of the error message; it says what cannot be done if the outputs differ.

    Raises:
        NotTheSame: an output differs by more than rounding explains.
    """
    expected = run_onnxruntime(original, images)
    for name, value in run_onnxruntime(changed, images).items():
        agreement = judge(value, expected[name], partial(_noise, original, images, name), dtype=_precision(original))
        if not agreement.holds:
            raise NotTheSame(
                "file",
                agreement.difference,
                f"{said}: output {name!r} differs by {agreement.difference:.1e} of its scale, rounding explains at "
                f"most {agreement.tolerance:.1e}",
            )


def _precision(network: Network) -> str:
    """Return `float16` if the network computes in float16 or its file stores constants in it, else the empty string.

    A float32 output behind such a part is as inexact as the part.
    """
    computed = any(each.dtype == "float16" for each in network.types.values())
    stored = bool(network.halves) or any(value.dtype == np.float16 for value in network.constants.values())
    return "float16" if computed or stored else ""


def _noise(network: Network, images: NDArray[np.float32], output: str) -> float:
    return runtime_noise(network.save(), {network.input_name: images})[output]
