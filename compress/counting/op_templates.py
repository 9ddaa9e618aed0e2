"""Op templates: the fused blocks of a network as ops to be timed at any widths, without cutting the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from compress.graph.cut import kept_slots
from compress.graph.flow import Trace, trace
from compress.graph.groups import Block, groups, layer_name
from compress.network import Array, Network, Node
from compress.ops import find_row
from compress.ops.row import Kept
from hw_profiles.ops import MAX_VALUE_ELEMENTS, Constant, Layout, Op, OpNode, TensorSpec, plain


@dataclass(frozen=True, eq=False)
class OpTemplate:
    """One fused block of the network, sized on demand.

    Attributes:
        name: name of its first node.
        nodes: its nodes, in execution order.
        layers: display names of its layers with weights, or its op types if it has no such layer.
        blocks: names of the channel blocks that its shapes depend on.
    """

    name: str
    nodes: tuple[Node, ...]
    layers: tuple[str, ...]
    blocks: tuple[str, ...]
    _network: Network = field(repr=False)
    _by_name: Mapping[str, Block] = field(repr=False)
    _trace: Trace = field(repr=False)
    _producers: Mapping[str, str] = field(repr=False)
    _layout: Layout = field(repr=False)

    def at(self, widths: Mapping[str, int] | None = None) -> Op:
        """Return the op for the given number of units of each named block; blocks that are not named stay whole."""
        chosen = [
            (self._by_name[name], np.arange(width)) for name, width in (widths or {}).items() if name in self.blocks
        ]
        return self._op(Kept(self._network, self._trace.axes, kept_slots(self._network, chosen, self._touched)))

    @cached_property
    def _calibrated(self) -> frozenset[str]:
        """Names of scales and zero points, whose values depend on calibration and do not matter to the kernel."""
        return frozenset(
            name
            for node in self.nodes
            if node.op_type in ("QuantizeLinear", "DequantizeLinear")
            for name in node.inputs[1:3]
        )

    @cached_property
    def _touched(self) -> frozenset[str]:
        return frozenset(name for node in self.nodes for name in (*node.inputs, *node.outputs) if name)

    def _op(self, kept: Kept) -> Op:
        made = {name for node in self.nodes for name in node.outputs if name}
        steering: dict[str, Array] = {}
        nodes = []
        for node in self.nodes:
            row = find_row(node)
            resized = row.resize(node, kept) if row else None
            nodes.append(resized.node if resized else node)
            steering |= resized.constants if resized else {}
        inputs: dict[str, tuple[TensorSpec, str]] = {}
        constants: dict[str, Constant] = {}
        for name in dict.fromkeys(name for node in nodes for name in node.inputs if name and name not in made):
            if name in steering or name in self._network.constants:
                constants[name] = self._constant(name, kept, steering)
            else:
                inputs[name] = (TensorSpec(kept.shape(name), self._network.types[name].dtype), self._producers[name])
        op_nodes = [OpNode(n.op_type, n.inputs, n.outputs, _attributes(n), n.domain) for n in nodes]
        opset = self._network.opset.get("", 1)
        return Op.of(op_nodes, inputs, constants, self._outputs(made), opset, self._layout)

    def _constant(self, name: str, kept: Kept, steering: Mapping[str, Array]) -> Constant:
        value = steering.get(name)
        if value is None:
            value = self._network.constants[name]
            for axis in range(value.ndim):
                value = np.take(value, kept.index(name, axis), axis=axis)
        shape_like = value.dtype.kind == "b" or value.dtype == np.int64
        steers = (shape_like or value.ndim == 0) and name not in self._calibrated
        shown = _nested(value.tolist()) if steers and value.size <= MAX_VALUE_ELEMENTS else None
        return Constant(TensorSpec(tuple(value.shape), str(value.dtype)), shown)

    def _outputs(self, made: set[str]) -> list[str]:
        own = {node.name for node in self.nodes}
        return [
            name
            for node in self.nodes
            for name in node.outputs
            if name in made
            and (
                name in self._network.outputs or any(reader.name not in own for reader in self._network.consumers(name))
            )
        ]


def op_templates(network: Network, fused: Iterable[frozenset[str]], layout: Layout = plain) -> tuple[OpTemplate, ...]:
    """Return the network's kernels, in execution order.

    Args:
        fused: sets of node names that the runtime runs as one (`Runtime.fused`); a node in no set is a kernel by
            itself.
    """
    flow = trace(network)
    blocks = {block.name: block for group in groups(network) for block in group.blocks}
    sets = _in_order(network, fused)
    producers = _producer_kinds(network, sets)
    return tuple(_template(network, nodes, blocks, flow, producers, layout) for nodes in sets)


def ops(network: Network, fused: Iterable[frozenset[str]], layout: Layout = plain) -> tuple[Op, ...]:
    """Return the kernels of the network at its present widths."""
    return tuple(template.at() for template in op_templates(network, fused, layout))


def _template(
    network: Network,
    nodes: tuple[Node, ...],
    blocks: Mapping[str, Block],
    flow: Trace,
    producers: Mapping[str, str],
    layout: Layout,
) -> OpTemplate:
    touched = {name for node in nodes for name in (*node.inputs, *node.outputs) if name}
    named = tuple(name for name, block in blocks.items() if any(tensor in touched for tensor, _ in block.slots))
    weights = [name for node in nodes for name in node.inputs[1:2] if name in network.constants and find_row(node)]
    layers = tuple(layer_name(name) for name in weights if network.constants[name].ndim > 1)
    shown = layers or tuple(node.op_type for node in nodes)
    return OpTemplate(nodes[0].name, nodes, shown, named, network, blocks, flow, producers, layout)


def _in_order(network: Network, fused: Iterable[frozenset[str]]) -> list[tuple[Node, ...]]:
    member = {name: names for names in fused for name in names}
    done: set[str] = set()
    sets: list[tuple[Node, ...]] = []
    for node in network.nodes:
        if node.name not in done:
            together = member.get(node.name, frozenset({node.name}))
            sets.append(tuple(other for other in network.nodes if other.name in together))
            done |= together
    return sets


def _producer_kinds(network: Network, sets: Sequence[tuple[Node, ...]]) -> dict[str, str]:
    """Return the origin of each activation: "input", or the op types of the kernel that produces it, as "conv+relu"."""
    kinds = dict.fromkeys(network.inputs, "input")
    for nodes in sets:
        kind = "+".join(node.op_type.lower() for node in nodes)
        kinds |= {name: kind for node in nodes for name in node.outputs if name}
    return kinds


def _attributes(node: Node) -> tuple[tuple[str, Any], ...]:
    return tuple((name, _nested(value)) for name, value in sorted(node.attributes.items()))


def _nested(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(_nested(item) for item in value) if isinstance(value, list | tuple) else value
