"""Logits: what a loss over classes takes. A network that ends in a Softmax, LogSoftmax or Sigmoid has them before it.

The losses here take the softmax themselves: of scores that have been through one, gradients all but vanish.
"""

from __future__ import annotations

from math import prod

from compress.network import Network, Node

_SHAPES = frozenset({"Identity", "Flatten", "Reshape", "Squeeze"})


def logits_name(network: Network) -> str:
    """The tensor of the logits: what the last activation over the classes reads, else the first output."""
    name = network.output_name
    node = network.producer(name)
    while node is not None and node.op_type in _SHAPES:
        node = network.producer(node.inputs[0])
    return node.inputs[0] if node is not None and _is_activation(node, network) else name


def _is_activation(node: Node, network: Network) -> bool:
    """Whether it turns one score a class into one probability a class, and no score changes places."""
    shape = network.shape(node.outputs[0])
    if node.op_type in ("Softmax", "LogSoftmax"):
        return bool(shape[node.get("axis", -1)] == prod(shape[1:]))
    return node.op_type == "Sigmoid"
