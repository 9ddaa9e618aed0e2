"""Batch norms given back, taken out and re-estimated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compress_graphs import Graph, images, mobile, residual

from compress.counting.cost import cost
from compress.errors import InvalidInput
from compress.graph.fold import fold_norms
from compress.graph.module import TorchNetwork
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import relative_difference
from compress.network import Network
from compress.training.reestimate import reestimate
from compress.training.renormalise import renormalise


def normed(network: Network) -> set[str]:
    """The layers that feed a batch norm."""
    found = set()
    for node in network.nodes:
        if node.op_type == "BatchNormalization":
            producer = network.producer(node.inputs[0])
            assert producer is not None
            found.add(producer.name)
    return found


@pytest.mark.parametrize("build", [residual, mobile])
def test_the_function_stays_and_folding_gives_the_file_back(build: object) -> None:
    network = build()  # type: ignore[operator]  # one of two factories
    result = renormalise(network, images(200))
    batch = images(8, seed=7)
    assert relative_difference(*(run_onnxruntime(n, batch)["logits"] for n in (result, network))) < 1e-5
    back = fold_norms(result)
    assert back.constants.keys() == network.constants.keys()
    assert [node.name for node in back.nodes] == [node.name for node in network.nodes]
    for name, value in network.constants.items():
        np.testing.assert_allclose(back.constants[name], value, atol=1e-5)


def test_statistics_are_those_of_the_data() -> None:
    network, batch = residual(), images(150)
    result = renormalise(network, batch, batch=64)
    values = run_onnxruntime(network, batch, ["stem"])["stem"].astype(np.float64)
    np.testing.assert_allclose(result.constants["stem_node/norm/mean"], values.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(result.constants["stem_node/norm/variance"], values.var((0, 2, 3)), rtol=1e-4)


def test_every_convolution_but_heads_gates_and_selections() -> None:
    assert normed(renormalise(residual(), images(32))) == {
        f"{n}_node" for n in ("stem", "a1", "a2", "b1", "b2", "short")
    }
    # reduce and expand see one value per image
    found = normed(renormalise(mobile(), images(32)))
    assert found == {f"{n}_node" for n in ("stem", "depthwise", "point", "branch")}


def test_a_convolution_that_is_the_head_gets_none() -> None:
    graph = Graph((3, 8, 8))
    x = graph.relu(graph.conv("image", "stem", (3, 4)), "stem_relu")
    x = graph.conv(x, "classes", (4, 5), kernel=1)
    graph.op("Flatten", [graph.op("GlobalAveragePool", [x], "pooled")], "logits")
    assert normed(renormalise(graph.network(), images(32))) == {"stem_node"}


def test_a_weight_that_two_convolutions_share_stays_one() -> None:
    graph = Graph((3, 8, 8))
    x = graph.relu(graph.conv("image", "stem", (3, 6)), "stem_relu")
    x = graph.relu(graph.conv(x, "first", (6, 6)), "first_relu")
    x = graph.op("Conv", [x, "first.weight", graph.constant("bias", np.ones(6, np.float32))], "second", pads=[1] * 4)
    x = graph.conv(graph.relu(x, "second_relu"), "last", (6, 6))
    graph.gemm(graph.pool_flat(graph.relu(x, "last_relu"), "flat"), "logits", (6, 4))
    network = graph.network()
    result = renormalise(network, images(32))
    assert normed(result) == {"stem_node", "last_node"}
    back = fold_norms(result)
    assert back.constants.keys() == network.constants.keys()
    assert cost(back).parameters == cost(network).parameters


def test_a_network_with_norms_is_left_alone() -> None:
    network = residual(norms=True)
    assert renormalise(network, images(8)) is network


def test_a_channel_that_is_always_the_same_survives() -> None:
    network = residual()
    weight = network.constants["stem.weight"].copy()
    weight[2] = 0.0
    network = network.with_constants({"stem.weight": weight})
    result = renormalise(network, images(32))
    assert all(np.isfinite(value).all() for value in result.constants.values() if value.dtype.kind == "f")


def test_no_images_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="at least one image"):
        renormalise(residual(), images(0))


def test_reestimation_gives_the_statistics_of_the_data() -> None:
    network = residual(norms=True)
    module = TorchNetwork(network).eval()
    batch = images(96, seed=4)
    reestimate(module, batch, batch=32)
    values = run_onnxruntime(network, batch, ["stem"])["stem"].astype(np.float64)
    written = module.write_back()
    np.testing.assert_allclose(written["stem_norm.mean"], values.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(written["stem_norm.variance"], values.var((0, 2, 3)), rtol=2e-2)
    assert not module.training


def test_reestimation_weighs_batches_by_their_size_and_skips_a_lone_image() -> None:
    module = TorchNetwork(residual(norms=True))
    batch = images(49, seed=4)
    reestimate(module, batch, batch=32)
    values = run_onnxruntime(module.network, batch, ["stem"])["stem"].astype(np.float64)
    np.testing.assert_allclose(module.write_back()["stem_norm.mean"], values.mean((0, 2, 3)), atol=1e-5)
    before = module.write_back()
    reestimate(module, images(1), batch=32)
    np.testing.assert_array_equal(module.write_back()["stem_norm.mean"], before["stem_norm.mean"])
    assert module.training


def test_reestimation_needs_no_norms_and_leaves_weights() -> None:
    module = TorchNetwork(residual())
    before = {name: weight.detach().clone() for name, weight in module.weights().items()}
    reestimate(module, images(8))
    for name, weight in module.weights().items():
        torch.testing.assert_close(weight.detach(), before[name], rtol=0, atol=0)
