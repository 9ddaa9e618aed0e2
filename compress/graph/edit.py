"""Edits of a graph. Each edit returns a new network, sorted and typed; `replaced` also runs the new network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from compress.graph.onnxruntime import run_onnxruntime
from compress.graph.shapes import infer_types
from compress.network import Array, Network, Node, frozen


def edited(network: Network, nodes: Iterable[Node], constants: Mapping[str, Array]) -> Network:
    """Return the network with these nodes in place of its own, sorted, without unused constants and typed again.

    Raises:
        InvalidInput: strict shape inference refuses the result.
    """
    ordered = sort_nodes(tuple(nodes), set(constants) | set(network.inputs))
    used = {name for node in ordered for name in node.inputs}
    kept = frozen({name: value for name, value in constants.items() if name in used or name in network.outputs})
    halves = network.halves.intersection(kept)
    return infer_types(replace(network, nodes=ordered, constants=kept, types={}, halves=halves))


def replaced(network: Network, remove: Iterable[str], nodes: Iterable[Node], constants: Mapping[str, Array]) -> Network:
    """Return the network with the named nodes replaced, and verify it. All structural edits use this function.

    The check is strict shape inference, and a run of the result in onnxruntime at batches 1 and 3.

    Raises:
        InvalidInput: the result is not a network that onnxruntime runs.
    """
    gone = set(remove)
    rest = [node for node in network.nodes if node.name not in gone]
    result = edited(network, [*rest, *nodes], {**network.constants, **constants})
    for batch in (1, 3):
        run_onnxruntime(result, np.zeros((batch, *result.input_shape), np.float32))
    return result


def sort_nodes(nodes: tuple[Node, ...], known: set[str]) -> tuple[Node, ...]:
    """Sort nodes into execution order; nodes that do not depend on each other keep their order.

    Raises:
        ValueError: the graph has a cycle, or a node has an input that no node produces.
    """
    made, ordered, waiting = set(known) | {""}, list[Node](), list(nodes)
    while waiting:
        ready = [node for node in waiting if made.issuperset(node.inputs)]
        if not ready:
            raise ValueError(f"no order for nodes {[node.name for node in waiting][:5]}: a cycle or a missing tensor")
        first = ready[0]
        waiting.remove(first)
        ordered.append(first)
        made.update(first.outputs)
        # Most graphs are already sorted: one sweep from here on is faster than starting at the front each time.
        rest = []
        for node in waiting:
            if made.issuperset(node.inputs):
                ordered.append(node)
                made.update(node.outputs)
            else:
                rest.append(node)
        waiting = rest
    return tuple(ordered)
