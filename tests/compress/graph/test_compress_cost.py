"""Costs, op templates and lossless rewrites against networks that were really cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx_graphs import Graph
from test_compress_groups import BUILT, blocks_of, random_keep

from compress.counting.cost import CostModel, cost, sent
from compress.counting.op_templates import op_templates, ops
from compress.evidence import Evidence
from compress.graph.cut import cut
from compress.graph.groups import groups
from compress.graph.onnxruntime import run_onnxruntime
from compress.graph.rewrites import rewritten
from compress.importing.agreement import relative_difference
from compress.importing.normalise import load_network
from compress.scheme import Scheme


@pytest.mark.parametrize("name", BUILT)
def test_the_cost_model_counts_what_a_cut_network_has(name: str) -> None:
    _, network = BUILT[name]
    blocks = blocks_of(network)
    keeps = [random_keep(network, seed) for seed in range(3)]
    counts = CostModel(network, blocks).counts(np.array([[len(keep[b.name]) for b in blocks] for keep in keeps]))
    for row, keep in enumerate(keeps):
        real = cost(cut(network, keep))
        assert counts["parameters"][row] == real.parameters
        assert counts["macs"][row] == real.macs
        # A resized Split or Slice states its sizes anew: some tens of bytes of the graph itself.
        assert counts["size_bytes"][row] == pytest.approx(real.size_bytes, rel=0.02, abs=64)


def test_macs_of_a_convolution() -> None:
    g = Graph(3, 8, 8)
    network = g.network(g.head(g.conv("image", "a", 3, 6, strides=[2, 2]), 6))
    assert cost(network).macs == 6 * 3 * 9 * 4 * 4 + 6 * 5
    assert cost(network).parameters == 6 * 3 * 9 + 6 + 6 * 5 + 5


def test_work_and_weights_of_ops_without_a_row_are_counted() -> None:
    g = Graph(3, 8, 8)
    x = g.op("ConvTranspose", "image", g.random("up.weight", 3, 4, 2, 2), g.random("up.bias", 4), strides=[2, 2])
    before = 4 * 3 * 2 * 2 * 8 * 8
    x = g.op("Transpose", g.op("Reshape", x, g.ints("rows", -1, 16, 64)), perm=[1, 0, 2])
    weights = (g.random("w", 1, 4 * 5, 64), g.random("r", 1, 4 * 5, 5), g.random("b", 1, 8 * 5))
    x = g.op("LSTM", x, *weights, outputs=3, hidden_size=5)[0]
    recurrent = 16 * (20 * 64 + 20 * 5)
    x = g.op("Transpose", g.op("Squeeze", x, g.ints("axis", 1)), perm=[1, 0, 2])
    x = g.op("MatMul", g.op("Softmax", g.op("MatMul", x, g.op("Transpose", x, perm=[0, 2, 1]))), x)
    attention = 2 * 16 * 16 * 5
    counted = cost(g.network(g.gemm(g.op("Flatten", x), "head", 80, 5)))
    assert counted.macs == before + recurrent + attention + 80 * 5
    assert counted.parameters == 3 * 4 * 4 + 4 + 20 * 64 + 20 * 5 + 40 + 80 * 5 + 5


def test_work_of_a_gru_in_both_directions_and_of_activations_alone_stays_at_every_width() -> None:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "a", 3, 6))
    rows = g.op("Reshape", "image", g.ints("rows", -1, 3, 64))
    again = g.op("MatMul", rows, g.op("Transpose", rows, perm=[0, 2, 1]))
    steps = g.op("Transpose", again, perm=[1, 0, 2])
    made = g.op(
        "GRU",
        steps,
        g.random("w", 2, 6, 3),
        g.random("r", 2, 6, 2),
        outputs=2,
        hidden_size=2,
        direction="bidirectional",
    )
    state = g.op("Reshape", g.op("Transpose", made[1], perm=[1, 0, 2]), g.ints("flat", -1, 4))
    network = g.network(g.op("Add", g.head(x, 6), g.gemm(state, "other", 4, 5)))
    (block,) = (block for block in blocks_of(network) if block.name == "a")
    other = 3 * 3 * 64 + 3 * 2 * (6 * 3 + 6 * 2) + 4 * 5
    for width in (6, 2):
        counts = CostModel(network, [block]).counts(np.array([[width]]))
        assert counts["macs"] == [width * 3 * 9 * 64 + width * 5 + other]
        assert counts["macs"] == [cost(cut(network, {"a": np.arange(width)})).macs]


def test_parameters_in_fewer_bits_are_counted() -> None:
    g = Graph(3, 8, 8)
    network = g.network(g.head(g.op("Relu", g.conv("image", "a", 3, 6)), 6))
    batch = g.images(4)
    for knob, option in (("int8_ptq", "int8"), ("fp16", "fp16")):
        scheme = Scheme.of([(knob, {})])
        made = scheme.bind({knob: option}).rewrite(network, scheme.gather(network, batch))
        assert cost(made).parameters == cost(network).parameters
        assert cost(load_network(made.save())).macs == cost(network).macs


def test_what_was_sent_costs_no_more_than_its_file() -> None:
    g = Graph(3, 8, 8)
    network = g.network(g.head(g.conv("image", "a", 3, 60), 60))
    counted = cost(network)
    with_notes = onnx.load_model_from_string(network.save())
    with_notes.doc_string = "x" * 1000
    assert sent(counted, with_notes.SerializeToString()) == counted
    few = Scheme.of([("weight_prune", {}), ("fp16", {})]).bind({"weight_prune": 0.1, "fp16": "fp16"})
    half = few.rewrite(network, Evidence())
    widened = replace(load_network(half.save()), halves=frozenset())  # as if it had come in float32
    assert widened.constants.keys() == network.constants.keys()
    assert cost(widened).stored_bytes > cost(half).stored_bytes
    seen = sent(cost(widened), half.save())
    assert seen.size_bytes == cost(half).size_bytes
    assert seen.stored_bytes == cost(half).stored_bytes
    assert seen.nonzeros == cost(widened).nonzeros


def test_what_was_sent_in_fewer_bytes_than_its_arrays_take_saves_no_more_than_those() -> None:
    """Zeros of 4 bytes are one byte each where integers have the length that they need."""
    g = Graph(3, 8, 8)
    network = g.network(g.head(g.conv("image", "a", 3, 60), 60))
    file = onnx.load_model_from_string(network.save())
    unused = onnx.TensorProto(name="unused", data_type=onnx.TensorProto.INT32, dims=[10_000])
    unused.int32_data.extend([0] * 10_000)
    before = sent(cost(network), file.SerializeToString()).stored_bytes
    file.graph.initializer.append(unused)
    counted = replace(cost(network), stored_bytes=10**6)
    after = sent(counted, file.SerializeToString()).stored_bytes
    assert before < after < before + 100


@pytest.mark.parametrize("name", BUILT)
def test_a_template_at_other_widths_is_the_op_of_the_cut_network(name: str) -> None:
    _, network = BUILT[name]
    widths = {b.name: len(kept) for b, kept in zip(blocks_of(network), random_keep(network, 5).values(), strict=True)}
    first = {name: np.arange(width) for name, width in widths.items()}
    expected = [op.key for op in ops(cut(network, first), [])]
    assert [template.at(widths).key for template in op_templates(network, [])] == expected


def test_fused_nodes_are_one_op() -> None:
    _, network = BUILT["residual"]
    names = {node.op_type: node.name for node in network.nodes}
    fused = [frozenset(node.name for node in network.nodes[4:6])]
    found = op_templates(network, fused)
    assert len(found) == len(network.nodes) - 1
    assert names["Flatten"] in [template.name for template in found]


def test_templates_carry_no_weights() -> None:
    for op in ops(BUILT["plain"][1], []):
        assert all(constant.value is None for constant in op.constants if len(constant.spec.shape) > 1)


def test_an_option_a_shortcut_becomes_one_strided_convolution() -> None:
    graph, network = BUILT["option_a"]
    better, images = rewritten(network), graph.images()
    a, b = (run_onnxruntime(n, images)[network.output_name] for n in (network, better))
    assert relative_difference(a, b) < 1e-6
    assert not {"Slice", "Pad"} & {node.op_type for node in better.nodes}
    assert [group.name for group in groups(better) if group.prunable][:3] == ["a", "s0.1", "s0.2"]


def test_other_pads_are_left_alone() -> None:
    g = Graph(3, 8, 8)
    x = g.op("Pad", g.conv("image", "a", 3, 6), g.ints("p", 0, 0, 1, 1, 0, 0, 1, 1))
    network = g.network(g.head(x, 6))
    assert rewritten(network) is network
