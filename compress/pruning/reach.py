"""Reach: the tensors that a gradient of the scores reaches, and the nodes that stop it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from compress.errors import Unsupported
from compress.graph.groups import Block, layer_name
from compress.network import Network, Node
from compress.ops import find_row
from compress.pruning.effective_weights import trained
from compress.training.logits import logits_name

SHOWN = 8
"""Number of names that a sentence lists."""


@dataclass(frozen=True)
class Reach:
    """The tensors that a gradient of the scores reaches.

    Attributes:
        on_path: every tensor that the scores depend on.
        tensors: every tensor on the path that a gradient reaches.
        walls: names of the nodes that stop the gradient, in execution order.
    """

    on_path: frozenset[str]
    tensors: frozenset[str]
    walls: tuple[str, ...]


def reach(network: Network) -> Reach:
    """Follow a gradient back through the graph, without running anything."""
    scores = logits_name(network)
    on_path, tensors, walls = {scores}, {scores}, list[str]()
    for node in reversed(network.nodes):
        if on_path.isdisjoint(node.outputs):
            continue
        on_path.update(node.inputs)
        if tensors.isdisjoint(node.outputs):
            continue
        if _passes(node, network):
            tensors.update(name for name in node.inputs if name and _is_float(network, name))
        else:
            walls.append(node.name)
    return Reach(frozenset(on_path), frozenset(tensors), tuple(walls[::-1]))


def unjudged(network: Network, blocks: Iterable[Block], found: Reach) -> tuple[str, ...]:
    """Return the names of the blocks that gradients cannot rank.

    The gradient does not reach all readers of such a block, or the samples of a batch are not separate there.
    """
    return tuple(block.name for block in blocks if not _judged(network, block, found))


def trains(network: Network) -> bool:
    """Return whether training changes any weight."""
    return not reach(network).tensors.isdisjoint(trained(network))


def untrained(network: Network) -> tuple[str, ...]:
    """Return a sentence if training leaves some weights as they are; else nothing."""
    found, weights = reach(network), trained(network)
    left = [name for name in weights if name not in found.tensors]
    if not weights:
        return ("training changes nothing: the network has no weights that can be trained",)
    if not left:
        return ()
    why = f"no gradient passes through {listed(found.walls)}" if found.walls else "the scores do not depend on them"
    layers = [layer_name(name) for name in left if network.constants[name].ndim > 1] or left
    return (f"training leaves {listed(layers)} as they are: {why}",)


def listed(names: Iterable[str]) -> str:
    """Join names for a sentence; of many names, list only the first and a count."""
    shown = list(dict.fromkeys(names))
    left = len(shown) - SHOWN
    return ", ".join(shown[:SHOWN]) + (f" and {left} more" if left > 0 else "")


def _judged(network: Network, block: Block, found: Reach) -> bool:
    seen = [_outputs(network, weight, tensor) for (weight, _), tensor in block.readers if tensor in found.on_path]
    apart = all(_samples_apart(network, tensor) for _, tensor in block.readers)
    return apart and any(seen) and all(outputs <= found.tensors for outputs in seen)


def _outputs(network: Network, weight: str, tensor: str) -> set[str]:
    """Return the outputs of the layers that read a tensor with this weight."""
    return {node.outputs[0] for node in network.consumers(weight) if tensor in node.inputs}


def _samples_apart(network: Network, tensor: str) -> bool:
    """Return whether the first axis is the batch alone. Windows folded into the axis turn one sample into several."""
    kind = network.types[tensor]
    return kind.batch_axis == 0 and kind.shape[0] == 1


def _passes(node: Node, network: Network) -> bool:
    row = find_row(node)
    try:
        return row is not None and bool(row.build(node, network))
    except Unsupported:
        return False


def _is_float(network: Network, name: str) -> bool:
    dtype = str(network.constants[name].dtype) if name in network.constants else network.types[name].dtype
    return dtype.startswith("float")
