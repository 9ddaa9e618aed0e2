"""Normalise any ONNX file of a classifier to one plain, typed graph with a symbolic batch.

Functions are inlined, constants and shape chains are folded, and a baked batch of 1 is made symbolic. Initializers are
copied so that each has one use, but a weight that is used twice in the same role stays one constant (tied). Metadata is
stripped, because torch writes source paths and stack traces there. Names of inputs, outputs and untouched tensors
stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compress.graph.edit import edited
from compress.importing.batch_statistics import in_inference, in_training
from compress.importing.determinism import check_deterministic
from compress.importing.faults import without_faults
from compress.importing.fold_constants import alive, fold_constants
from compress.importing.private_constants import private_constants
from compress.importing.read import (
    check_finite,
    check_outputs,
    constants_and_nodes,
    ir_version,
    opsets,
    prepared,
    read_inputs,
    scored_name,
    without_empty,
)
from compress.importing.shape_chains import fold_shape_chains, unbake_batch
from compress.network import Network, TensorType, frozen, parse


def load_network(source: bytes | Path | str, *, as_exported: bool = False) -> Network:
    """Read, normalise and type an ONNX file.

    Args:
        as_exported: True leaves batch norms that were exported in training mode in that mode.

    Raises:
        InvalidInput: the file is not ONNX, has external data or several inputs, or its batch cannot be made symbolic.
    """
    given = parse(source)
    model = prepared(given)
    warnings: list[str] = []
    constants, nodes = constants_and_nodes(model.graph, warnings)
    nodes, constants, halves = fold_constants(nodes, constants, dict(opsets(model)))
    nodes = [without_empty(node, constants) for node in nodes]
    inputs = read_inputs(model.graph, constants, warnings)
    outputs = {value.name: TensorType((), "float32") for value in model.graph.output}
    network = Network(
        tuple(nodes), frozen(constants), inputs, outputs, dict(opsets(model)), ir_version(model), halves=halves
    )
    check_finite(network)
    network = unbake_batch(network, warnings)
    network = fold_shape_chains(network)
    network = private_constants(network)
    network = replace(network, nodes=tuple(alive(network.nodes, network.outputs)))
    check_deterministic(network)
    if not as_exported:
        network = norms_in_inference(network, warnings)
    network = edited(network, network.nodes, network.constants)
    check_outputs(network)
    return without_faults(replace(network, warnings=tuple(warnings), scored=scored_name(given)))


def norms_in_inference(network: Network, warnings: list[str]) -> Network:
    switched = in_inference(network)
    count = len(in_training(network)) - len(in_training(switched))
    if count:
        warnings.append(f"{count} batch norms were exported in training mode and have been switched to inference mode")
    return switched
