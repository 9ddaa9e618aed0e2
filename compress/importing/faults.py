"""Faults: a row of ours that breaks on a node is not asked again; the node is left as it is, with the reason."""

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
"""Samples that the rows are tried on: two show a row that takes the batch for a constant."""


def without_faults(network: Network) -> Network:
    """The network with every node marked whose row breaks on it: it runs in onnxruntime, its channels stay.

    A row says what it does not cover (`Unsupported`). One that fails otherwise is a mistake of ours, and a mistake
    in one op is no reason to refuse a whole network.

    Raises:
        Mistake: a node without a row cannot be run either.
    """
    network = _marked(network, _broken_rules(network))
    while True:
        module = _module(network)
        try:
            with torch.no_grad():
                module(_noise(network))
        except Exception:  # whatever torch or numpy raises for arguments that do not fit
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
    """Nodes whose row cannot be built, or cannot say how channels pass or what they cost."""
    seen, broken = Trace.start(network), dict[str, str]()
    for node in network.nodes:
        try:
            _ask(node, network)
            flow = flow_of(node, network, seen)
        except Exception:  # a row that meets what it was not written for fails in any way
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
    """The first node, in execution order, whose row cannot be run."""
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
    raise Mistake("a network whose nodes run one by one does not run as a whole")


def _reason(node: Node) -> str:
    return f"our rule for {node.op_type} does not fit this use of it"


def _noise(network: Network) -> torch.Tensor:
    return torch.randn((BATCH, *network.input_shape), generator=torch.Generator().manual_seed(0))
