"""Renormalise: insert batch norms into a folded network for training; `compress.graph.fold` removes them again.

Most ONNX files have batch norms folded in, and without batch norms a network that lost channels trains badly. Each
inserted norm has the statistics of real data, and a scale and an offset that leave the layer's function unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compress.graph.edit import edited
from compress.graph.fold import EPSILON, check_same_function
from compress.graph.names import Names
from compress.network import Array, Network, Node
from compress.quantising.activations import channel_moments

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})


def renormalise(network: Network, images: NDArray[np.float32], batch: int = 64) -> Network:
    """Return an equivalent network with a batch norm after each convolution that can have one.

    A convolution cannot have a norm if a norm follows already, if it is an output head or if it shares its weight.

    Args:
        images: (N, *input_shape) float32, real data; a thousand give stable statistics.
        batch: images per run; limits memory use.

    Returns:
        The network itself if there is nothing to do. Activations keep their names; a changed convolution's output
        is called `<name>/raw`.

    Raises:
        InvalidInput: there are no images, or the outputs differ (checked in onnxruntime on some of the images).
    """
    layers = [node for node in network.nodes if _wants_norm(network, node)]
    if not layers:
        return network
    moments = channel_moments(network, {node.outputs[0]: 1 for node in layers}, images, batch)
    nodes: list[Node] = []
    names, constants = Names(network), dict(network.constants)
    for node in network.nodes:
        if node.outputs[0] in moments:
            pair, own = _normed(node, names, *moments[node.outputs[0]])
            nodes += pair
            constants |= own
        else:
            nodes.append(node)
    result = edited(network, nodes, constants)
    check_same_function(result, network, images[:8], "batch norms cannot be inserted without loss")
    return result


def _wants_norm(network: Network, node: Node) -> bool:
    if node.op_type != "Conv" or node.input(1) not in network.constants:
        return False
    # Folding needs a weight that only one layer reads: folding two norms into a shared weight would split it in two.
    if network.sole_consumer(node.input(1)) is None:
        return False
    output = node.outputs[0]
    if output in network.outputs or any(n.op_type == "BatchNormalization" for n in network.consumers(output)):
        return False
    # One value per image (squeeze and excitation) is too little for batch statistics. A weight of zeros and ones only
    # selects channels and learns nothing.
    spatial = network.shape(output)[2:]
    selects = np.isin(network.constants[node.input(1)], (0.0, 1.0)).all()
    return bool(np.prod(spatial) > 1) and not selects and not _is_head(network, node)


def _is_head(network: Network, node: Node) -> bool:
    """Return True if no layer with weights comes after this one."""
    return not any(later.op_type in LAYERS for later in _downstream(network, node))


def _downstream(network: Network, node: Node) -> Iterator[Node]:
    waiting, seen = list(node.outputs), set[str]()
    while waiting:
        for consumer in network.consumers(waiting.pop()):
            if consumer.name not in seen:
                seen.add(consumer.name)
                waiting += consumer.outputs
                yield consumer


def _normed(
    node: Node, names: Names, mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> tuple[list[Node], dict[str, Array]]:
    """Return the layer followed by a norm that changes nothing: gamma is the standard deviation, beta the mean."""
    output = node.outputs[0]
    values = {"gamma": np.sqrt(variance + EPSILON), "beta": mean, "mean": mean, "variance": variance}
    constants: dict[str, Array] = {
        names.new(f"{node.name}/norm/{role}"): value.astype(np.float32) for role, value in values.items()
    }
    raw = names.new(f"{output}/raw")
    norm = Node(
        "BatchNormalization", names.new(f"{node.name}/norm"), (raw, *constants), (output,), {"epsilon": EPSILON}
    )
    return [replace(node, outputs=(raw,)), norm], constants
