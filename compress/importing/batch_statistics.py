"""Batch statistics: batch norms exported in training mode, which make a sample's outputs depend on its neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.errors import InvalidInput
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import relative_difference
from compress.network import Network, Node

ALONE = 0.05
"""Bound on the relative difference of a sample's outputs alone and in a batch; rounding and int8 stay well below it."""


def in_training(network: Network) -> tuple[str, ...]:
    """Return the names of the batch norms that use the statistics of the batch."""
    return tuple(node.name for node in network.nodes if _trains(node))


def in_inference(network: Network) -> Network:
    """Return the network with batch norms in inference mode; a norm whose updated statistics a node reads stays."""
    nodes = [_switched(node) if _trains(node) and _is_free(node, network) else node for node in network.nodes]
    return replace(network, nodes=tuple(nodes))


def has_training_norms(model: onnx.ModelProto) -> bool:
    """Return whether a file has a batch norm in training mode."""
    nodes = (node for part in (model.graph, *model.functions) for node in part.node)
    norms = (node for node in nodes if node.op_type == "BatchNormalization")
    return any(attribute.name == "training_mode" and attribute.i for norm in norms for attribute in norm.attribute)


def check_independent(network: Network, samples: NDArray[np.float32]) -> None:
    """Check that a sample's outputs do not depend on the other samples in its batch.

    Args:
        samples: (N, *input_shape) float32, N >= 2.

    Raises:
        InvalidInput: the outputs depend on other samples. The message names the first node whose output for a sample
            alone differs from its output for the same sample in the batch.
    """
    # Scale the samples: similar samples would hide the fault, since each has the statistics of the batch.
    samples = samples * (4.0 ** (np.arange(len(samples)) - 1)).astype(np.float32).reshape(-1, *[1] * (samples.ndim - 1))
    if not _differing(network, samples, list(network.outputs)):
        return
    inner = [name for node in network.nodes for name in node.outputs if name in network.types]
    first = _differing(network, samples, inner)
    node = network.producer(first or network.output_name)
    assert node is not None
    raise InvalidInput(
        "file",
        node.name[:80],
        f"a sample's outputs depend on the other samples in its batch, first at node {node.name!r} ({node.op_type}): "
        "export the network in eval mode (torch: model.eval()), without operations across the batch",
    )


def _differing(network: Network, samples: NDArray[np.float32], names: list[str]) -> str | None:
    """Return the first of these tensors that differs. Tensors whose first axis is not the batch cannot be compared."""
    names = [name for name in names if network.types[name].batch_axis == 0 and network.types[name].shape[0] == 1]
    together = run_onnxruntime(network, samples, names)
    alone = [run_onnxruntime(network, samples[i : i + 1], names) for i in range(len(samples))]
    for name in names:
        apart = np.concatenate([values[name] for values in alone])
        if relative_difference(apart, together[name]) > ALONE:
            return name
    return None


def _trains(node: Node) -> bool:
    return node.op_type == "BatchNormalization" and bool(node.get("training_mode", 0))


def _is_free(node: Node, network: Network) -> bool:
    return not any(network.consumers(name) or name in network.outputs for name in node.outputs[1:] if name)


def _switched(node: Node) -> Node:
    rest = {name: value for name, value in node.attributes.items() if name != "training_mode"}
    return replace(node, attributes=rest, outputs=node.outputs[:1])
