"""Names that we make up never meet those of a file, however it names its tensors and nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx_graphs import Graph

from compress.evidence import Evidence
from compress.graph.fold import fold_norms
from compress.graph.onnxruntime import run_onnxruntime
from compress.graph.rewrites import rewritten
from compress.importing.agreement import relative_difference
from compress.importing.normalise import load_network
from compress.importing.verify import verify
from compress.methods import fp16, int8_ptq
from compress.network import Network
from compress.training.renormalise import renormalise

Edit = Callable[[Network, Any], Network]


def int8(network: Network, images: Any) -> Network:
    operator = int8_ptq.Int8Ptq(int8_ptq.Settings()).bind({int8_ptq.KNOB: "int8"})
    return operator.rewrite(network, Evidence(images=images))


def half(network: Network, images: Any) -> Network:
    return fp16.Fp16(fp16.Settings()).bind({fp16.KNOB: "fp16"}).rewrite(network, Evidence(images=images))


EDITS: list[Edit] = [
    int8, half, lambda network, images: renormalise(network, images), lambda network, images: fold_norms(network),
    lambda network, images: rewritten(network),
]  # fmt: skip


def graph() -> Graph:
    """A network on which every edit has something to do."""
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.norm(g.conv("image", "a", 3, 6, bias=False), "a.norm", 6))
    y = g.op("Slice", x, g.ints("from", 0, 0), g.ints("to", 8, 8), g.ints("along", 2, 3), g.ints("by", 2, 2))
    y = g.op("Pad", y, g.ints("pads", 0, 1, 0, 0, 0, 1, 0, 0))
    z = g.conv(x, "b", 6, 8, strides=[2, 2])
    g.op("Reshape", g.op("GlobalAveragePool", g.op("Add", y, z)), g.ints("flat", 1, 8))
    g.gemm(g.nodes[-1].output[0], "head", 8, 5)
    return g


def renamed(g: Graph, names: dict[str, str]) -> Network:
    """The graph with some activations under other names."""
    for node in g.nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return g.network(g.nodes[-1].output[0])


@pytest.mark.parametrize("edit", EDITS, ids=["int8", "fp16", "renormalise", "fold", "rewrite"])
def test_an_edit_adds_only_new_names(edit: Edit) -> None:
    """Whatever an edit would call its tensors, a file may have called its own so: that file is edited as well."""
    g = graph()
    plain, images = g.network(g.nodes[-1].output[0]), g.images(8)
    added = sorted({name for node in edit(plain, images).nodes for name in (*node.inputs, *node.outputs, node.name)})
    fresh = [name for name in added if name not in {n for node in plain.nodes for n in (*node.inputs, *node.outputs)}]
    assert fresh
    free = [node.output[0] for node in g.nodes[:-1]]
    for start in range(0, len(fresh), len(free)):
        h = graph()
        taken = dict(zip(free, fresh[start:], strict=False))
        network = renamed(h, taken)
        verify(network, images)
        made = edit(network, images)
        expected = run_onnxruntime(edit(plain, images), images)[plain.output_name]
        assert relative_difference(run_onnxruntime(made, images)[network.output_name], expected) < 1e-5
        again = load_network(made.save())
        assert relative_difference(run_onnxruntime(again, images)[network.output_name], expected) < 1e-5
        assert load_network(again.save()).save() == again.save()


def test_names_made_while_loading_meet_none_of_the_file() -> None:
    g = graph()
    reshape = next(node for node in g.nodes if node.op_type == "Reshape")
    network = renamed(g, {g.nodes[0].output[0]: f"{reshape.name}_shape"})
    verify(network, g.images(3))


def test_a_node_without_a_name_takes_none_that_another_has() -> None:
    g = Graph(3, 8, 8)
    proto = g.proto(g.head(g.op("Relu", g.conv("image", "a", 3, 6)), 6))
    proto.graph.node[0].name = ""
    proto.graph.node[2].name = "Conv_0"
    network = load_network(proto.SerializeToString())
    assert network.nodes[2].name == "Conv_0"
    assert not network.warnings
    assert np.unique([node.name for node in network.nodes]).size == len(network.nodes)
