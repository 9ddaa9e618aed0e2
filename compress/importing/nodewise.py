"""Nodewise check: compare each node of a network in torch and in onnxruntime on the same inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import Disagreement
from compress.graph.module import TorchNetwork
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import Agreement, judge, relative_difference
from compress.network import Array, Network, Node

TOGETHER = 32
"""Number of nodes whose tensors are held at once. The tensors of a whole deep network would not fit into memory."""


def check_nodes(network: Network, module: TorchNetwork, batch: NDArray[np.float32]) -> None:
    """Raise Disagreement for the first node whose outputs differ from onnxruntime's for the same inputs."""
    for nodes in _together(network.nodes):
        names = dict.fromkeys(name for node in nodes for name in (*node.inputs, *node.outputs) if name)
        made = [name for name in names if name in network.types and name not in network.inputs]
        seen = {network.input_name: batch, **run_onnxruntime(network, batch, made)}
        for node in nodes:
            for agreement in _agreements(node, network, module, seen):
                if not agreement.holds:
                    raise Disagreement(node.name, node.op_type, agreement.difference, agreement.tolerance)


def _together(nodes: tuple[Node, ...]) -> Iterator[tuple[Node, ...]]:
    rest = iter(nodes)
    while taken := tuple(islice(rest, TOGETHER)):
        yield taken


def _agreements(node: Node, network: Network, module: TorchNetwork, seen: Mapping[str, Array]) -> Iterator[Agreement]:
    given = {name: torch.from_numpy(np.array(seen[name])) for name in node.inputs if name in seen}
    with torch.no_grad():
        made = module.made(node.name, given)
    for name, value in made.items():
        if name in seen:
            noise = partial(_rounding, node, module, given, name, value)
            yield judge(value.numpy(), seen[name], noise, step=_level(node))


def _level(node: Node) -> float:
    """Return the step of quantised outputs, or 0 for other outputs. A value between two levels may round to either."""
    return 1.0 if node.op_type == "QuantizeLinear" else 0.0


def _rounding(node: Node, module: TorchNetwork, given: Mapping[str, Tensor], name: str, value: Tensor) -> float:
    """Return how much the node's result differs from double precision, i.e. the rounding error of its sums."""
    if node.name in module.opaque:
        return 0.0
    network = module.network
    read = {own: torch.from_numpy(np.array(network.constants[own])) for own in node.inputs if own in network.constants}
    doubled = {own: x.double() if x.is_floating_point() else x for own, x in {**read, **given}.items()}
    with torch.no_grad():
        exact = module.made(node.name, doubled)[name]
    return relative_difference(value.numpy(), exact.numpy())
