"""A row of ours that breaks on a node costs that node's channels, and never the whole network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx_graphs import Graph

import compress.graph.opaque
from compress import ops
from compress.errors import Mistake
from compress.graph.cut import cut
from compress.graph.groups import groups, prunable_blocks
from compress.graph.module import TorchNetwork
from compress.importing.normalise import load_network
from compress.importing.verify import verify


def broken(*_: Any) -> Any:
    raise KeyError("last")


def breaks_later(*_: Any) -> Any:
    return broken


def proto_of(g: Graph) -> bytes:
    x = g.op("Relu", g.conv("image", "free", 3, 8))
    x = g.op("Softplus", g.conv(x, "touched", 8, 6))
    return bytes(g.proto(g.head(x, 6)).SerializeToString())


@pytest.mark.parametrize("fault", [{"build": broken}, {"build": breaks_later}, {"flow": broken}, {"macs": broken}])
def test_a_broken_row_is_not_asked_again(fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    table = ops._table()
    monkeypatch.setitem(table, "Softplus", replace(table["Softplus"], **fault))  # type: ignore[index]
    g = Graph(3, 8, 8)
    network = load_network(proto_of(g))
    (node,) = (node for node in network.nodes if node.op_type == "Softplus")
    assert TorchNetwork(network).opaque == (node.name,)
    (warning,) = network.warnings
    assert node.name in warning
    assert "last" not in warning
    named = {group.name: group for group in groups(network)}
    assert named["free"].prunable
    assert "the rule for Softplus" in named["touched"].reason
    smaller = cut(network, {block.name: np.arange(3) for block in prunable_blocks(network)})
    verify(smaller, g.images(3))


def test_a_node_that_nothing_can_run_is_our_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    table = dict(ops._table())
    del table["Softplus"]
    monkeypatch.setattr(ops, "_table", lambda: table)
    monkeypatch.setattr(compress.graph.opaque, "session", broken)
    with pytest.raises(Mistake):
        load_network(proto_of(Graph(3, 8, 8)))
