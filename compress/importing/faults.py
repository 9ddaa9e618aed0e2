"""Faults: if a row of the op tables fails on a node, the node is marked as opaque, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import torch

from compress.errors import Mistake, Unsupported, lacks_memory
from compress.graph.flow import Trace, flow_of
from compress.graph.module import TorchNetwork
from compress.network import Network, Node
from compress.ops import find_row

BATCH = 2
"""Number of samples that the rows are tried on. Two samples reveal a row that takes the batch size for a constant."""


def without_faults(network: Network) -> Network:
    """Return the network with a mark on each node whose row fails: it runs in onnxruntime, and its channels stay.

    A row raises `Unsupported` for cases that it does not cover. Any other error is a bug in Netlathe, and a bug in
    one op is no reason to refuse a whole network.

    Raises:
        Mistake: onnxruntime cannot run a node either.
    """
    network = _marked(network, _broken_rules(network))
    while True:
        module = _module(network)
        try:
            with torch.no_grad():
                module(_noise(network))
        except Exception:  # torch and numpy raise many types for arguments that do not fit
            network = _marked(network, _first_broken(network, module))
        else:
            return network


def _module(network: Network) -> TorchNetwork:
    try:
        return TorchNetwork(network).eval()
    except Exception as error:
        if lacks_memory(error):
            raise
        raise Mistake(f"a node cannot be run on its own: {error}") from error


def _marked(network: Network, broken: Mapping[str, str]) -> Network:
    if not broken:
        return network
    nodes = tuple(replace(node, opaque=broken.get(node.name, node.opaque)) for node in network.nodes)
    said = tuple(
        f"{reason}: {name!r} and the channels that it touches stay as they are" for name, reason in broken.items()
    )
    return replace(network, nodes=nodes, warnings=(*network.warnings, *said))


def _broken_rules(network: Network) -> dict[str, str]:
    """Return the nodes whose row fails to build, trace channels or count multiply-accumulates, with the reason."""
    seen, broken = Trace.start(network), dict[str, str]()
    for node in network.nodes:
        try:
            _ask(node, network)
            flow = flow_of(node, network, seen)
        except Exception:  # a row may fail in any way on a case that it was not written for
            broken[node.name] = _reason(node)
            flow = flow_of(replace(node, opaque=_reason(node)), network, seen)
        seen.add(flow)
    return broken


def _ask(node: Node, network: Network) -> None:
    row = find_row(node)
    if row is not None:
        row.macs(node, network)
        with suppress(Unsupported):
            row.build(node, network)


def _first_broken(network: Network, module: TorchNetwork) -> dict[str, str]:
    """Return the first node, in execution order, whose row cannot be run."""
    env = {network.input_name: _noise(network)}
    for node in network.nodes:
        try:
            with torch.no_grad():
                env |= module.made(node.name, env)
        except Exception as error:
            if lacks_memory(error):
                raise
            if node.name in module.opaque:
                raise Mistake(f"{node.op_type} {node.name!r} cannot be run: {error}") from error
            return {node.name: _reason(node)}
    raise Mistake("the nodes run one by one, but the network does not run as a whole")


def _reason(node: Node) -> str:
    return f"the rule for {node.op_type} fails on this node"


def _noise(network: Network) -> torch.Tensor:
    return torch.randn((BATCH, *network.input_shape), generator=torch.Generator().manual_seed(0))
