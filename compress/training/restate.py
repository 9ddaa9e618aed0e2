"""Restate: batch norms whose statistics are not those of the data get the data's, and compute what they did.

In training a batch norm takes the statistics of the batch. If a file's own are far from them, as those of a channel
that puts out one value and is given another mean, training would start from a network that does something else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.graph.fold import EPSILON, check_same_function
from compress.network import Array, Network, Node
from compress.pruning.layer_error import FLAT
from compress.quantising.activations import channel_moments

Vector = NDArray[np.float64]
FAR = 2.0
"""Times as large or as small a deviation; half of it, in deviations, how far a mean may be."""


def restated(network: Network, images: NDArray[np.float32], batch: int = 64) -> Network:
    """The same function on such images, each batch norm that is far from them with their statistics.

    A channel that says the same of all images becomes a constant of its norm: what is left of its filter is rounding,
    which a small variance would make large, and its gradient with it.

    Args:
        images: (N, *input_shape) float32, real data; a thousand give steady statistics.
        batch: images per run; what bounds the memory.

    Returns:
        The network itself if no norm is far from the images.

    Raises:
        InvalidInput: no images, or the result computes something else (checked in onnxruntime on some of them).
    """
    norms = [node for node in network.nodes if _can_be_restated(node, network)]
    if not norms:
        return network
    seen = channel_moments(network, {node.inputs[0]: 1 for node in norms}, images, batch)
    changed: dict[str, Array] = {}
    for node in norms:
        changed |= _restated(node, network, *seen[node.inputs[0]])
    if not changed:
        return network
    result = network.with_constants(changed)
    check_same_function(result, network, images[:8], "batch norms cannot take the statistics of the data without loss")
    return result


def _can_be_restated(node: Node, network: Network) -> bool:
    """Whether it is a norm of activations, of constants of its own: a tensor of the graph's inputs is no activation."""
    normal = node.op_type == "BatchNormalization" and not node.get("training_mode", 0)
    own = all(name in network.constants and network.sole_consumer(name) is node for name in node.inputs[1:5])
    return normal and own and network.producer(node.inputs[0]) is not None


def _restated(node: Node, network: Network, mean: Vector, variance: Vector) -> dict[str, Array]:
    """New constants of a norm, none if its statistics are near enough: all of it, as training moves all channels."""
    names = node.inputs[1:5]
    gamma, beta, own_mean, own_variance = (network.constants[name].astype(np.float64) for name in names)
    epsilon = node.get("epsilon", EPSILON)
    before, after = np.sqrt(own_variance + epsilon), np.sqrt(variance + epsilon)
    moved = (mean - own_mean) / before
    if (np.abs(moved) <= FAR / 2).all() and (np.abs(np.log(after / before)) <= np.log(FAR)).all():
        return {}
    level = beta + gamma * moved
    # Less, not equal: a channel that is zero on these images may say something of other ones.
    flat = gamma**2 * variance / before**2 < FLAT * level**2
    values = (np.where(flat, 0.0, gamma * after / before), level, mean, variance)
    made = zip(names, values, strict=True)
    return {name: value.astype(network.constants[name].dtype) for name, value in made}
