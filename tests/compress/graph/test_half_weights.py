"""Weights that came as float16 behind a Cast stay so: after loading, cutting, training and folding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from compress_graphs import Graph
from onnx import TensorProto, helper, numpy_helper

from compress.counting.cost import CostModel, cost
from compress.counting.node_cost import node_costs
from compress.graph.cut import cut
from compress.graph.fold import fold_norms
from compress.graph.groups import prunable_blocks
from compress.graph.onnxruntime import run_onnxruntime
from compress.half_floats import is_half, nearest_half
from compress.importing.normalise import load_network
from compress.methods import fp16
from compress.network import Network
from compress.pruning.effective_weights import layer_weights


def whole(norms: bool = False) -> Network:
    g = Graph((3, 8, 8))
    x = g.conv("image", "a", (3, 24))
    x = g.relu(g.norm(x, "a.norm", 24) if norms else x, "ra")
    g.gemm(g.pool_flat(g.conv(x, "b", (24, 32)), "flat"), "logits", (32, 5))
    return g.network()


def halved(network: Network, transposed: str = "") -> bytes:
    """The file with its weights as float16 behind Casts, as converters write them; one with a Transpose after that."""
    model = network.to_proto()
    weights, casts = set(layer_weights(network)), list[Any]()
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            value, name = numpy_helper.to_array(tensor).astype(np.float16), tensor.name
            made = f"{name}_wide" if name == transposed else name
            casts.append(helper.make_node("Cast", [f"{name}_fp16"], [made], f"{name}_cast", to=TensorProto.FLOAT))
            if name == transposed:
                value = value.T
                casts.append(helper.make_node("Transpose", [made], [name], f"{name}_turn", perm=[1, 0]))
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), f"{name}_fp16"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def stored_types(network: Network) -> Mapping[str, int]:
    return {tensor.name: tensor.data_type for tensor in network.to_proto().graph.initializer}


def constant_bytes(model: onnx.ModelProto) -> int:
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)


def halves_in(network: Network) -> int:
    return list(stored_types(network).values()).count(TensorProto.FLOAT16)


@pytest.mark.parametrize("transposed", ["", "logits.weight"])
def test_a_file_is_saved_as_small_as_it_came(transposed: str) -> None:
    file = halved(whole(), transposed)
    network = load_network(file)
    assert halves_in(network) == 3
    assert constant_bytes(network.to_proto()) == constant_bytes(onnx.load_model_from_string(file))
    images = np.random.default_rng(0).standard_normal((4, 3, 8, 8), np.float32)
    assert stored_types(network)["a.bias"] == TensorProto.FLOAT
    again = load_network(network.save())
    assert (again.digest, again.halves) == (network.digest, network.halves)
    plain = replace(network, halves=frozenset())
    for name, value in run_onnxruntime(network, images).items():
        assert np.array_equal(value, run_onnxruntime(plain, images)[name])


def test_what_is_cut_is_predicted_to_the_byte_and_smaller_than_the_upload() -> None:
    file = halved(whole())
    network = load_network(file)
    blocks = prunable_blocks(network)
    keep = {block.name: np.arange(block.width // 2) for block in blocks}
    small = cut(network, keep)
    assert halves_in(small) == 3
    assert len(small.save()) < len(file)
    widths = np.array([[block.width // 2 for block in blocks]])
    predicted = CostModel(network, blocks).counts(widths)["size_bytes"][0]
    assert predicted == pytest.approx(cost(small).size_bytes, abs=32)  # lengths are of one byte or two
    headers = [
        cost(one).size_bytes - sum(each.size_bytes for each in node_costs(one).values()) for one in (network, small)
    ]
    assert headers[0] == pytest.approx(headers[1], abs=1)  # the length of the graph itself may need one byte less
    assert cost(network).stored_bytes <= cost(network).size_bytes


def test_trained_weights_are_rounded_before_anything_is_judged() -> None:
    network = load_network(halved(whole()))
    moved = {name: network.constants[name] * np.float32(1.0001) for name in network.constants}
    trained = network.with_constants(moved)
    assert all(is_half(trained.constants[name]) for name in network.halves)
    assert np.array_equal(trained.constants["a.weight"], nearest_half(moved["a.weight"]))
    assert np.array_equal(trained.constants["a.bias"], moved["a.bias"])
    assert load_network(trained.save()).constants["b.weight"].tolist() == trained.constants["b.weight"].tolist()


def test_folding_a_norm_into_such_a_weight_keeps_it_so() -> None:
    network = load_network(halved(whole(norms=True)))
    folded = fold_norms(network)
    assert halves_in(folded) == halves_in(network) == 3
    assert load_network(folded.save()).digest == folded.digest


def test_a_weight_that_float16_lacks_is_saved_whole() -> None:
    network = load_network(halved(whole()))
    odd = {**network.constants, "a.weight": network.constants["a.weight"] * np.float32(1.0001)}
    stored = stored_types(replace(network, constants=odd))
    assert stored["a.weight"] == TensorProto.FLOAT
    assert stored["b.weight/half"] == TensorProto.FLOAT16


def test_fp16_finds_nothing_left_to_do() -> None:
    network = load_network(halved(whole()))
    assert fp16.Fp16(fp16.Settings()).knobs(network, {}) == ()


def test_the_names_of_a_file_are_not_taken() -> None:
    network = load_network(halved(whole()))
    renamed = [
        replace(
            node,
            inputs=tuple("a.weight/half" if name == "ra" else name for name in node.inputs),
            outputs=tuple("a.weight/half" if name == "ra" else name for name in node.outputs),
        )
        for node in network.nodes
    ]
    taken = load_network(replace(network, nodes=tuple(renamed)).save())
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)
    expected = run_onnxruntime(network, images)[network.output_name]
    assert np.array_equal(run_onnxruntime(taken, images)[network.output_name], expected)
    assert halves_in(taken) == 3
