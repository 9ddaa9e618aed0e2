"""Constants: compute once what depends on constants alone, and remove nodes that nothing reads."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np
from onnx import helper
from onnx.reference import ReferenceEvaluator

from compress.half_floats import is_half
from compress.importing.determinism import RANDOM_OPS
from compress.network import Array, Node, node_proto

# Folding these would turn a user's quantised weights back into floats.
QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# A random sample must not become a constant: a random node stays and is later refused by name.
NEVER_FOLDED = QUANTISERS | RANDOM_OPS | {"Dropout"}


def fold_constants(
    nodes: list[Node], constants: dict[str, Array], opset: Mapping[str, int]
) -> tuple[list[Node], dict[str, Array], frozenset[str]]:
    """Return the nodes that remain, all constants, and the names of the constants that were widened from float16."""
    rest, halves = list[Node](), set[str]()
    for node in nodes:
        if node.op_type in NEVER_FOLDED or not all(name in constants for name in node.inputs if name):
            rest.append(node)
            continue
        values = evaluate(node, constants, opset)
        if values is None:
            rest.append(node)
        else:
            constants |= values
            halves.update(name for name in values if _half_weight(node, name, constants, halves))
    return rest, constants, frozenset(halves)


def _half_weight(node: Node, made: str, constants: Mapping[str, Array], halves: Container[str]) -> bool:
    """Return whether a weight was float16 in the file (behind a Cast, or moved after it) and its numbers still fit.

    Vectors are excluded, because the statistics of norms may need the range of float32.
    """
    came = any(name in halves or (name in constants and constants[name].dtype == np.float16) for name in node.inputs)
    return came and constants[made].ndim > 1 and is_half(constants[made])


def evaluate(node: Node, values: Mapping[str, Any], opset: Mapping[str, int]) -> dict[str, Array] | None:
    """Return the outputs of one node for known inputs; None if onnx's reference cannot run it."""
    feeds = {name: np.asarray(values[name]) for name in node.inputs if name}
    graph = helper.make_graph(
        [node_proto(node)],
        "one",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()],
        [helper.make_empty_tensor_value_info(name) for name in node.outputs if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in opset.items()])
    try:
        results = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # a third-party op may raise anything; the node is then kept
        return None
    return {name: np.asarray(value) for name, value in zip(filter(None, node.outputs), results, strict=True)}


def alive(nodes: Iterable[Node], outputs: Iterable[str]) -> list[Node]:
    wanted, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs)
            kept.append(node)
    return kept[::-1]
