"""Shape chains: make a baked-in batch symbolic again, and fold values that depend on shapes alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from compress.graph.names import Names
from compress.graph.shapes import Shape, inferred
from compress.importing.fold_constants import NEVER_FOLDED, alive, evaluate
from compress.network import Array, Network, Node, frozen


def unbake_batch(network: Network, warnings: list[str]) -> Network:
    """Make a leading 1 in a Reshape's constant shape follow the batch, because it is the exporter's batch of 1."""
    baked = {node.name for node in network.nodes if _starts_with_one(node, network)}
    if not baked:
        return network
    seen, names = inferred(network, 1), Names(network)
    constants = dict(network.constants)
    nodes = []
    for node in network.nodes:
        # Integers are shapes and positions, not samples, so a leading size of 1 is intended.
        if node.name in baked and seen.get(node.input(0), ((), "float32"))[1].startswith("float"):
            name, shape = names.new(f"{node.name}_shape"), constants[node.input(1)]
            constants[name] = np.concatenate([[0 if -1 in shape else -1], shape[1:]]).astype(np.int64)
            node = replace(node, inputs=(node.input(0), name))
            warnings.append(f"Reshape {node.name!r} had a batch of 1 baked in; it now follows the batch")
        nodes.append(node)
    return replace(network, nodes=tuple(nodes), constants=frozen(constants))


def _starts_with_one(node: Node, network: Network) -> bool:
    shape = network.constants.get(node.input(1)) if node.op_type == "Reshape" else None
    return bool(shape is not None and shape.ndim == 1 and shape.size and shape[0] == 1 and not node.get("allowzero", 0))


def fold_shape_chains(network: Network) -> Network:
    """Turn values that depend on shapes alone into constants; each Reshape gets a constant shape, -1 for the batch."""
    (at_three, shapes_three), (at_five, shapes_five) = (_shape_values(network, batch) for batch in (3, 5))
    constants, names = dict(network.constants), Names(network)
    nodes = []
    for node in network.nodes:
        known = [name for name in node.outputs if name in at_three]
        same = [name for name in known if np.array_equal(at_three[name], at_five[name])]
        constants |= {name: at_three[name] for name in same}
        if len(same) == len(node.outputs):
            continue
        if node.op_type == "Reshape" and node.outputs[0] in shapes_three:
            symbolic = _batch_symbolic(shapes_three[node.outputs[0]][0], shapes_five[node.outputs[0]][0])
            if symbolic is not None and not _reshapes_to(node, symbolic, constants):
                name = names.new(f"{node.name}_shape")
                constants[name] = symbolic
                node = replace(node, inputs=(node.input(0), name), attributes={})
        nodes.append(node)
    return replace(network, nodes=tuple(alive(nodes, network.outputs)), constants=frozen(constants))


def _reshapes_to(node: Node, shape: Array, constants: Mapping[str, Array]) -> bool:
    """Return whether the node has this shape already. It then keeps its name when a file is loaded and saved again."""
    return not node.attributes and np.array_equal(constants.get(node.input(1), np.empty(0)), shape)


def _batch_symbolic(at_three: Shape, at_five: Shape) -> Array | None:
    """Return a Reshape's target with -1 for the batch; None if several axes follow the batch or a size is unknown."""
    if None in at_three or sum(a != b for a, b in zip(at_three, at_five, strict=True)) > 1:
        return None
    return np.array([-1 if a != b else a for a, b in zip(at_three, at_five, strict=True)], dtype=np.int64)


def _shape_values(network: Network, batch: int) -> tuple[dict[str, Array], dict[str, tuple[Shape, str]]]:
    """Return the tensors whose values depend on shapes alone at this batch, and the shapes inferred with them."""
    values: dict[str, Array] = {}
    while True:
        known = {**network.constants, **values}
        rest = tuple(node for node in network.nodes if not known.keys() >= set(node.outputs))
        shapes = inferred(replace(network, nodes=rest, constants=known), batch)
        fresh = _evaluated_from_shapes(rest, known, shapes, network.opset)
        if not fresh:
            return values, shapes
        values |= fresh


def _evaluated_from_shapes(
    nodes: Iterable[Node], known: Mapping[str, Array], shapes: Mapping[str, tuple[Shape, str]], opset: Mapping[str, int]
) -> dict[str, Array]:
    values: dict[str, Array] = {}
    for node in nodes:
        if node.op_type == "Shape":
            shape = shapes[node.input(0)][0] if node.input(0) in shapes else (None,)
            if None not in shape:
                start, end = node.get("start", 0), node.get("end", len(shape))
                values[node.outputs[0]] = np.array(shape[start:end], dtype=np.int64)
        elif node.op_type in NEVER_FOLDED or not node.inputs:
            continue
        elif all(name in known or name in values for name in node.inputs if name):
            values |= evaluate(node, {**known, **values}, opset) or {}
    return values
