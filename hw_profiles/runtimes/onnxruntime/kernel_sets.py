"""Reads from an optimised graph which nodes of the original model the optimiser turned into one kernel.

The optimiser keeps names if it can: a kernel has the name of one of the nodes that it replaces or of a tensor that it
makes, sometimes with a suffix. Before the runtime sees the model, `renamed` gives every node and tensor a unique name
that survives such suffixes; `kernel_sets` finds those names again, adds the nodes after them that a kernel is known to
have absorbed, and assigns every other node to the kernel that reads its result.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx

from hw_profiles.errors import InvalidInput

# Layout changes that the optimiser inserts; they correspond to no node of the model.
_INSERTED = frozenset({"ReorderInput", "ReorderOutput"})
_ACTIVATIONS = frozenset({"Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Clip", "Mul"})
# Op types seen between a kernel and the QuantizeLinear that it absorbed; all of them are no-ops on the quantised range.
_ABSORBED_BY_QUANTISED = frozenset({"Relu", "Clip", "Identity", "Dropout"})
_NODE = re.compile(r"@n(\d+)@")
_TENSOR = re.compile(r"@t(\d+)@")


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which nodes are called @n<index>@ and the tensors that they make @t<number>@.

    Raises InvalidInput if a node has a subgraph, or if node names are missing or repeated, because sets of such names
    would mean nothing.
    """
    names = [node.name for node in model.graph.node]
    bad = [name for name in names if not name or names.count(name) > 1]
    if bad:
        raise InvalidInput("model", bad[0], "fused sets need unique, non-empty node names")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = {"": ""}
    for index, node in enumerate(copy.graph.node):
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise InvalidInput("model", node.name, f"{node.op_type} has a subgraph")
        node.name = f"@n{index}@"
        for name in node.output:
            tensors.setdefault(name, f"@t{len(tensors)}@")
        for side in (node.input, node.output):
            side[:] = [tensors.get(name, name) for name in side]
    for value in copy.graph.output:
        value.name = tensors.get(value.name, value.name)
    del copy.graph.value_info[:]
    return copy


@dataclass
class _Graph:
    """The original nodes by index, and for each tensor the node that makes it and the nodes that read it."""

    nodes: list[onnx.NodeProto]
    maker: dict[str, int] = field(default_factory=dict)
    readers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for index, node in enumerate(self.nodes):
            for name in node.output:
                self.maker[name] = index
            for name in dict.fromkeys(node.input):
                self.readers[name].append(index)

    def followers(self, index: int) -> list[int]:
        """Return the nodes that read an output of node `index`."""
        return [reader for name in self.nodes[index].output for reader in self.readers.get(name, [])]


def kernel_sets(original: onnx.GraphProto, optimised: onnx.GraphProto) -> tuple[frozenset[int], ...]:
    """Return the indices of the nodes of `original` (as `renamed` made it) by kernel, in the order of the kernels.

    Each node is in one set. A node that was folded away belongs to the kernel that reads its result; if several kernels
    read the result, it belongs to the first of them.
    """
    graph = _Graph(list(original.node))
    kernels = [node for node in optimised.node if not _inserted(node)]
    owner: dict[int, int] = {}
    ends: dict[int, int] = {}
    for number, kernel in enumerate(kernels):
        seeds = [seed for seed in _seeds(graph, kernel) if seed not in owner]
        owner.update(dict.fromkeys(seeds, number))
        if seeds:
            ends[number] = max(seeds)
    for number, end in ends.items():
        _extend(graph, kernels[number], number, end, owner)
    _claim_inlined(graph, [(n, kernel) for n, kernel in enumerate(kernels) if n not in ends], owner)
    for index in reversed(range(len(graph.nodes))):
        readers = [owner[reader] for reader in graph.followers(index) if reader in owner]
        if index not in owner:
            # no kernel reads this node's result: put the node into a set of its own, after all other sets
            owner[index] = min(readers) if readers else len(kernels) + index
    sets: dict[int, set[int]] = defaultdict(set)
    for index, number in owner.items():
        sets[number].add(index)
    return tuple(frozenset(sets[number]) for number in sorted(sets))


def _inserted(kernel: onnx.NodeProto) -> bool:
    """Return True if the optimiser added this layout change; a layout change that also transposes comes from the
    model.
    """
    transposes = any(attribute.name == "channels_last" and attribute.i for attribute in kernel.attribute)
    return kernel.op_type in _INSERTED and not transposes


def _claim_inlined(graph: _Graph, unnamed: list[tuple[int, onnx.NodeProto]], owner: dict[int, int]) -> None:
    """If a node ran as the body of its ONNX function (HardSwish), assign it to the first kernel of that body."""
    for index, node in enumerate(graph.nodes):
        if index in owner or not onnx.defs.has(node.op_type, node.domain):
            continue
        body = {inner.op_type for inner in onnx.defs.get_schema(node.op_type, node.domain).function_body.node}
        kernels = [number for number, kernel in unnamed if kernel.op_type in body and number not in owner.values()]
        if kernels:
            owner[index] = kernels[0]


def _seeds(graph: _Graph, kernel: onnx.NodeProto) -> list[int]:
    """Return the original nodes that the names of a kernel and of its outputs refer to."""
    found = [int(number) for number in _NODE.findall(kernel.name)]
    tensors = [f"@t{number}@" for number in _TENSOR.findall(kernel.name)]
    # An inserted Transpose carries the tensor's name, but no name that `renamed` gave a node.
    if found or tensors or kernel.op_type != "Transpose":
        tensors += [match for name in kernel.output for match in _whole_tensors(name)]
    found += [graph.maker[name] for name in tensors if name in graph.maker]
    return sorted(set(found))


def _whole_tensors(name: str) -> Iterable[str]:
    match = _TENSOR.match(name)
    return [match.group(0)] if match else []


def _extend(graph: _Graph, kernel: onnx.NodeProto, number: int, end: int, owner: dict[int, int]) -> None:
    """Assign to `kernel` the nodes that it absorbed after the node whose name it has."""
    if kernel.domain.endswith("nchwc") and kernel.op_type == "Conv":
        if len(kernel.input) > 3 and kernel.input[3]:
            end = _absorb(graph, number, end, owner, frozenset({"Add", "Sum"}))
        activated = any(attribute.name == "activation" for attribute in kernel.attribute)
        if activated and graph.nodes[end].op_type not in _ACTIVATIONS:
            end = _absorb(graph, number, end, owner, _ACTIVATIONS)
    _absorb_quantise(graph, number, end, owner)


def _absorb(graph: _Graph, number: int, end: int, owner: dict[int, int], op_types: frozenset[str]) -> int:
    """Assign to the kernel those readers of `end` that have one of these types and no kernel yet; return the kernel's
    new last node.
    """
    taken = [i for i in graph.followers(end) if i not in owner and graph.nodes[i].op_type in op_types]
    owner.update(dict.fromkeys(taken, number))
    return max(taken, default=end)


def _absorb_quantise(graph: _Graph, number: int, end: int, owner: dict[int, int]) -> None:
    """Assign a QuantizeLinear without a kernel to the kernel before it, which ran it."""
    chain: list[int] = []
    while graph.nodes[end].op_type != "QuantizeLinear":
        readers = graph.followers(end)
        if len(readers) != 1 or readers[0] in owner:
            return
        end = readers[0]
        chain.append(end)
        if graph.nodes[end].op_type not in _ABSORBED_BY_QUANTISED | {"QuantizeLinear"}:
            return
    owner.update(dict.fromkeys(chain, number))


def names_of(model: onnx.ModelProto, sets: Iterable[frozenset[int]]) -> tuple[frozenset[str], ...]:
    """Translate sets of node indices to sets of the model's own node names."""
    return tuple(frozenset(model.graph.node[index].name for index in indices) for indices in sets)
