"""Restate: give the data's statistics to batch norms whose own are far from them, without changing the function.

In training, a batch norm uses the statistics of the batch. The statistics in a file may differ widely from these, e.g.
if a channel is constant and its norm's mean is another value. Training would then start from a network that computes
another function.
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
"""Largest ratio between two standard deviations that count as near. Means count as near if they differ by at most half
this number of standard deviations.
"""
FEW = 128
"""Number of images of a first look. It is the last if all norms are clearly near the statistics of these images."""
CLEARLY = 0.5
"""Largest share of the distance allowed that counts as clearly near."""


def restated(network: Network, images: NDArray[np.float32], batch: int = 64) -> Network:
    """Return a network that computes the same on such images; batch norms whose statistics are far off get those of the
    images.

    A channel that has the same value for all images becomes a constant of its norm. Its filter adds nothing but
    rounding errors, and a small variance would make these errors and their gradient large.

    Args:
        images: (N, *input_shape) float32, real data; a thousand give steady statistics.
        batch: images per run; limits memory use.

    Returns:
        The network itself if no norm's statistics are far from the images'.

    Raises:
        InvalidInput: there are no images, or the result's outputs differ (checked in onnxruntime on some of the
            images).
    """
    norms = [node for node in network.nodes if _can_be_restated(node, network)]
    if not norms:
        return network
    tensors = {node.inputs[0]: 1 for node in norms}
    if len(images) > FEW:
        first = channel_moments(network, tensors, images[:FEW], batch)
        if max(_distance(node, network, *first[node.inputs[0]]) for node in norms) <= CLEARLY:
            return network
    seen = channel_moments(network, tensors, images, batch)
    changed: dict[str, Array] = {}
    for node in norms:
        changed |= _restated(node, network, *seen[node.inputs[0]])
    if not changed:
        return network
    result = network.with_constants(changed)
    check_same_function(result, network, images[:8], "batch norms cannot take the statistics of the data without loss")
    return result


def _can_be_restated(node: Node, network: Network) -> bool:
    """Return whether the node is a batch norm of an inner tensor, with constants that no other node reads."""
    normal = node.op_type == "BatchNormalization" and not node.get("training_mode", 0)
    own = all(name in network.constants and network.sole_consumer(name) is node for name in node.inputs[1:5])
    return normal and own and network.producer(node.inputs[0]) is not None


def _distance(node: Node, network: Network, mean: Vector, variance: Vector) -> float:
    """Return the largest distance of any channel's statistics from these, as a share of the distance that is near."""
    own_mean, own_variance = (network.constants[name].astype(np.float64) for name in node.inputs[3:5])
    epsilon = node.get("epsilon", EPSILON)
    before, after = np.sqrt(own_variance + epsilon), np.sqrt(variance + epsilon)
    shares = np.abs(mean - own_mean) / before / (FAR / 2), np.abs(np.log(after / before)) / np.log(FAR)
    return float(np.max(shares))


def _restated(node: Node, network: Network, mean: Vector, variance: Vector) -> dict[str, Array]:
    """Return new constants for all channels, because training changes them all; return none if the norm's statistics
    are near.
    """
    names = node.inputs[1:5]
    gamma, beta, own_mean, own_variance = (network.constants[name].astype(np.float64) for name in names)
    epsilon = node.get("epsilon", EPSILON)
    before, after = np.sqrt(own_variance + epsilon), np.sqrt(variance + epsilon)
    moved = (mean - own_mean) / before
    if _distance(node, network, mean, variance) <= 1.0:
        return {}
    level = beta + gamma * moved
    # "Less", not "less or equal": a channel that is zero on these images may carry information on others.
    flat = gamma**2 * variance / before**2 < FLAT * level**2
    values = (np.where(flat, 0.0, gamma * after / before), level, mean, variance)
    made = zip(names, values, strict=True)
    return {name: value.astype(network.constants[name].dtype) for name, value in made}
