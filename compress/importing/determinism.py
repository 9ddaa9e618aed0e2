"""Determinism: a network must give the same outputs for the same image; otherwise it cannot be verified or scored."""

from __future__ import annotations

from compress.errors import InvalidInput
from compress.network import Network, Node

RANDOM_OPS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


def check_deterministic(network: Network) -> None:
    """Raise InvalidInput if a node's output is drawn at random in every run; the message names the first such node."""
    for node in network.nodes:
        if node.domain == "" and (node.op_type in RANDOM_OPS or _drops(node, network)):
            raise InvalidInput(
                "file",
                node.name[:80],
                f"node {node.name!r} ({node.op_type}) is random: the network's outputs differ in every run; "
                "export it in eval mode (torch: model.eval()), without random nodes",
            )


def _drops(node: Node, network: Network) -> bool:
    """Return whether a node is a Dropout in training mode. A Dropout without the third input passes everything."""
    training = network.constants.get(node.input(2)) if node.op_type == "Dropout" else None
    return training is not None and bool(training.any())
