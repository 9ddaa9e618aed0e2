"""Precision: the choice of the nodes that run in int8 and, with them, of the tensors that are quantised."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from compress.graph.groups import layer_name
from compress.network import Network, Node

HEAVY = frozenset({"Conv", "Gemm", "MatMul"})
# These ops gain from int8 only if their inputs are int8 already; otherwise the conversions cost more than int8 saves.
LIGHT = frozenset({"Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "LeakyRelu", "Sigmoid"})
# These ops pass values through unchanged, so that input and output share one scale.
MOVING = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice"})
# Quantising clips to a range anyway, so these ops disappear.
CLAMPING = frozenset({"Relu", "Clip"})


@dataclass(frozen=True)
class Precision:
    """The nodes and tensors of a network that are quantised.

    Attributes:
        nodes: names of the nodes that run in int8.
        absorbed: names of the Relu and Clip nodes that the quantised range replaces.
        made: tensor that an int8 node (with the clamp that it absorbs) produces -> tensor that sets the scale.
        read: float tensor (the input, or a float node's output) that is quantised for its int8 readers -> the same
            tensor.
        floats: name of a layer that could not be quantised -> the reason.
    """

    nodes: frozenset[str]
    absorbed: frozenset[str]
    made: Mapping[str, str]
    read: Mapping[str, str]
    floats: Mapping[str, str]

    @property
    def calibrated(self) -> tuple[str, ...]:
        """The tensors whose range determines a scale, each once."""
        return tuple(dict.fromkeys([*self.read.values(), *self.made.values()]))


def choose(network: Network, keep_float: Collection[str] = ()) -> Precision:
    """Choose int8 for every layer, and for each light op whose tensors would otherwise be converted back and forth.

    Args:
        keep_float: names of the nodes or layers (`layer_names`) that stay in floating point.
    """
    return _Choice(network, frozenset(keep_float)).result()


class _Choice:
    def __init__(self, network: Network, keep_float: frozenset[str]) -> None:
        self.network = network
        self.keep_float = keep_float
        self.nodes: set[str] = set()
        self.absorbed: set[str] = set()
        self.made: dict[str, str] = {}
        self.read: dict[str, str] = {}
        self.floats: dict[str, str] = {}

    def result(self) -> Precision:
        heavy = {node.name for node in self.network.nodes if node.op_type in HEAVY and self._covered(node)}
        wanted = {node.inputs[0] for node in self.network.nodes if node.name in heavy}
        for node in self.network.nodes:
            if self._kept(node) or node.name in self.absorbed:
                continue
            if node.name in heavy:
                self._quantise(node, node.inputs[:1])
            elif node.op_type in MOVING and node.inputs[0] in self.made:
                self.nodes.add(node.name)
                self.made[node.outputs[0]] = self.made[node.inputs[0]]
            elif node.op_type in LIGHT and self._surrounded(node, wanted):
                self._quantise(node, [name for name in node.inputs if name in self.network.types])
        return Precision(frozenset(self.nodes), frozenset(self.absorbed), self.made, self.read, self.floats)

    def _quantise(self, node: Node, inputs: Collection[str]) -> None:
        self.nodes.add(node.name)
        for name in inputs:
            if name not in self.made:
                self.read[name] = name
        output = node.outputs[0]
        if node.op_type in ("Gemm", "MatMul") and output in self.network.outputs:
            return  # the integer product is scaled directly to float, because rounding it first would only add an error
        clamp = self.network.sole_consumer(output)
        if clamp is not None and self._absorbs(clamp):
            self.absorbed.add(clamp.name)
            output = clamp.outputs[0]
        self.made[output] = output

    def _absorbs(self, clamp: Node) -> bool:
        if clamp.op_type not in CLAMPING or self._kept(clamp):
            return False
        return clamp.op_type == "Relu" or all(name in self.network.constants for name in clamp.inputs[1:] if name)

    def _surrounded(self, node: Node, wanted: Collection[str]) -> bool:
        """Return whether the node reads only activations that are all quantised anyway."""
        return all(
            name in self.network.types and (name in self.made or name in self.read or name in wanted)
            for name in node.inputs
        )

    def _kept(self, node: Node) -> bool:
        return not self.keep_float.isdisjoint(layer_names(node))

    def _covered(self, node: Node) -> bool:
        reason = "kept by the settings" if self._kept(node) else _gap(self.network, node)
        if reason:
            self.floats[node.name] = reason
        return not reason


def layer_names(node: Node) -> tuple[str, ...]:
    """Return the names of a node: its own name and, for a layer, the name of its weight without ".weight"."""
    return (node.name, layer_name(node.inputs[1])) if node.op_type in HEAVY else (node.name,)


def _gap(network: Network, node: Node) -> str:
    """Return why a layer cannot run in int8; empty if it can."""
    if node.input(0) not in network.types or network.types[node.input(0)].dtype != "float32":
        return "its input is not a float32 activation"
    if any(name not in network.constants for name in node.inputs[1:] if name):
        return "its weights are not constants"
    weight = network.constants[node.inputs[1]]
    if node.op_type == "MatMul" and weight.ndim != 2:
        return f"a MatMul with weights of {weight.ndim} axes"
    if node.op_type == "Gemm":
        if node.get("transA", 0) or node.get("alpha", 1.0) != 1.0 or node.get("beta", 1.0) != 1.0:
            return "a Gemm with transA, alpha or beta"
        width = weight.shape[0 if node.get("transB", 0) else 1]
        if node.input(2) and network.constants[node.inputs[2]].size != width:
            return "a Gemm whose bias is not one number per output"
    return ""
