"""Logits: the numbers that a loss over classes takes. If a network ends in a Softmax, LogSoftmax or Sigmoid, its logits
are the input of that node.

The losses here apply the softmax themselves. If it were applied twice, the gradients would almost vanish.
"""

from __future__ import annotations

from math import prod

from compress.network import Network, Node

_SHAPES = frozenset({"Identity", "Flatten", "Reshape", "Squeeze"})


def logits_name(network: Network) -> str:
    """Return the name of the logits: the input of a last activation over the classes, or else the scored output."""
    name = network.output_name
    node = network.producer(name)
    while node is not None and node.op_type in _SHAPES:
        node = network.producer(node.inputs[0])
    return node.inputs[0] if node is not None and _is_activation(node, network) else name


def _is_activation(node: Node, network: Network) -> bool:
    """Return whether the node turns one score per class into one probability per class, in the same order."""
    shape = network.shape(node.outputs[0])
    if node.op_type in ("Softmax", "LogSoftmax"):
        return bool(shape[node.get("axis", -1)] == prod(shape[1:]))
    return node.op_type == "Sigmoid"
