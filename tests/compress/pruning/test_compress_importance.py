"""Importance: formulas on small layers, gradients against finite differences, both forms of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compress_graphs import Graph, images, mobile, residual, walled

from compress.data.dataset import load_dataset
from compress.data.preprocessing import Preprocessing, preprocess
from compress.errors import InvalidInput
from compress.graph.fold import fold_norms
from compress.graph.groups import Block, prunable_blocks
from compress.graph.module import TorchNetwork
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.normalise import load_network
from compress.network import Network
from compress.pruning.channel_gates import gate_products
from compress.pruning.importance import KINDS, Kind, fallback, score
from compress.task import Targets
from compress.tasks.classification import TASK


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def labels(count: int, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(3).integers(0, classes, count)


def loss(network: Network, batch: np.ndarray, truth: np.ndarray) -> float:
    module = TorchNetwork(network).eval().double()
    with torch.no_grad():
        return float(F.cross_entropy(module(torch.from_numpy(batch).double()), torch.from_numpy(truth)))


def dimmed(network: Network, block: Block, unit: int, by: float) -> Network:
    """The network with one unit a little weaker wherever it is read."""
    updates: dict[str, np.ndarray] = {}
    for (weight, axis), _ in block.readers:
        value = updates.get(weight, network.constants[weight]).copy()
        view = np.moveaxis(value, axis, 0)
        view[block.slots[(weight, axis)][unit]] *= np.float32(1 - by)
        updates[weight] = value
    return network.with_constants(updates)


def test_l1_and_l2_of_one_layer() -> None:
    graph = Graph((3, 8, 8))
    x = graph.relu(graph.conv("image", "stem", (3, 4)), "stem_relu")
    graph.gemm(graph.pool_flat(x, "flat"), "logits", (4, 2))
    network = graph.network()
    weight = network.constants["stem.weight"].reshape(4, -1).astype(np.float64)
    blocks = prunable_blocks(network)
    np.testing.assert_allclose(score(network, blocks, "l1")["stem"], np.abs(weight).sum(1))
    np.testing.assert_allclose(score(network, blocks, "l2")["stem"], np.linalg.norm(weight, axis=1))


def test_coupled_layers_add_up_on_effective_weights() -> None:
    network = residual(norms=True)
    stem = next(block for block in prunable_blocks(network) if block.name == "stem")
    expected = np.zeros(8)
    for name in ("stem", "a2"):
        gamma, variance = (
            network.constants[f"{name}_norm.{role}"].astype(np.float64) for role in ("gamma", "variance")
        )
        factor = gamma / np.sqrt(variance + 1e-5)
        weight = network.constants[f"{name}.weight"].reshape(8, -1) * factor[:, None]
        expected += (weight**2).sum(1)
    np.testing.assert_allclose(score(network, [stem], "l2")["stem"], np.sqrt(expected), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_folded_file_ranks_as_the_one_with_norms(kind: Kind) -> None:
    kept = residual(norms=True)
    folded = fold_norms(kept)
    batch, truth = images(64), labels(64)
    scores = [score(network, prunable_blocks(network), kind, batch, Targets(TASK, truth)) for network in (kept, folded)]
    assert scores[0].keys() == scores[1].keys()
    for name, values in scores[0].items():
        assert values.argsort().tolist() == scores[1][name].argsort().tolist()
        np.testing.assert_allclose(values, scores[1][name], rtol=1e-2, atol=1e-7)


def test_batch_norm_without_images_is_gamma() -> None:
    network = residual(norms=True)
    found = score(network, prunable_blocks(network), "batch_norm")
    np.testing.assert_allclose(found["a1"], np.abs(network.constants["a1_norm.gamma"]))
    with pytest.raises(InvalidInput, match="no batch norm"):
        score(fold_norms(network), prunable_blocks(network), "batch_norm")


@pytest.mark.parametrize("build", [residual, mobile])
def test_gates_are_the_derivative_of_weakening_a_unit_everywhere(build: object) -> None:
    network = build()  # type: ignore[operator]  # one of two factories
    network = network.with_constants({"logits.weight": network.constants["logits.weight"] * np.float32(3)})
    batch, truth, step = images(16), labels(16), 1e-4
    blocks = prunable_blocks(network)
    (products,) = gate_products(network, blocks, batch, Targets(TASK, truth), 16)
    for block in blocks:
        for unit in range(0, block.width, 3):
            up, down = (loss(dimmed(network, block, unit, by), batch, truth) for by in (-step, step))
            slope = (up - down) / (2 * step)
            assert products[block.name][:, unit].mean() == pytest.approx(slope, rel=0.01, abs=2e-5)


def test_taylor_and_fisher_are_moments_of_the_gates() -> None:
    network = residual()
    blocks, batch, truth = prunable_blocks(network), images(20), labels(20)
    (products,) = gate_products(network, blocks, batch, Targets(TASK, truth), 20)
    taylor, fisher = (
        score(network, blocks, kind, batch, Targets(TASK, truth), batch=7) for kind in ("taylor", "fisher")
    )
    for name, product in products.items():
        np.testing.assert_allclose(taylor[name], np.abs(product.mean(0)), rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(fisher[name], (product**2).mean(0) / 2, rtol=1e-3, atol=1e-9)


def test_a_unit_that_nobody_can_see_has_no_importance() -> None:
    network = residual()
    weight = network.constants["a2.weight"].copy()
    weight[:, 3] = 0.0
    network = network.with_constants({"a2.weight": weight})
    for kind in ("taylor", "fisher"):
        found = score(network, prunable_blocks(network), kind, images(16), Targets(TASK, labels(16)))["a1"]
        assert found[3] == 0.0
        assert (np.delete(found, 3) > 0).all()


def test_wrong_kinds_and_missing_images_are_named() -> None:
    network = residual()
    with pytest.raises(InvalidInput, match="l1, l2") as caught:
        score(network, prunable_blocks(network), "magnitude")  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.value == "magnitude"
    with pytest.raises(InvalidInput, match="needs images"):
        score(network, prunable_blocks(network), "fisher")


def test_an_op_that_passes_no_gradient_is_named() -> None:
    graph = Graph((3, 8, 8))
    x = graph.relu(graph.conv("image", "stem", (3, 4)), "stem_relu")
    x = graph.op("Sin", [graph.pool_flat(x, "flat")], "opaque")
    graph.gemm(x, "logits", (4, 2))
    network = graph.network()
    with pytest.raises(InvalidInput, match="opaque_node"):
        next(gate_products(network, (), images(4), None, 4))


@pytest.mark.parametrize("kind", ["fisher", "taylor"])
@pytest.mark.parametrize("wall", ["GroupNorm", "Sin"])
def test_weights_rank_what_no_gradient_comes_to_and_it_is_said(wall: str, kind: Kind) -> None:
    network = walled(wall)
    blocks = {block.name: block for block in prunable_blocks(network)}
    found, by_weight = (
        score(network, tuple(blocks.values()), each, images(16), Targets(TASK, labels(16))) for each in (kind, "l2")
    )
    assert found.keys() == blocks.keys() == {"stem", "late"}
    np.testing.assert_array_equal(found["stem"], by_weight["stem"])
    only = score(network, [blocks["late"]], kind, images(16), Targets(TASK, labels(16)))["late"]
    np.testing.assert_array_equal(found["late"], only)
    assert (only != by_weight["late"]).all()
    assert (only > 0).any()
    (said,) = fallback(network, tuple(blocks.values()), kind)
    assert "stem" in said
    assert "late" not in said
    assert "wall_node" in said
    assert "l2" in said
    assert fallback(network, tuple(blocks.values()), "l1") == ()


def test_a_gradient_that_comes_everywhere_is_not_replaced() -> None:
    assert fallback(residual(), prunable_blocks(residual()), "fisher") == ()


def test_a_unit_read_on_both_sides_of_a_wall_is_ranked_by_weights() -> None:
    graph = Graph((3, 8, 8))
    x = graph.relu(graph.conv("image", "stem", (3, 4)), "stem_relu")
    dark = graph.op("Sin", [graph.conv(x, "dark", (4, 4))], "wall")
    light = graph.conv(x, "light", (4, 4))
    graph.gemm(graph.pool_flat(graph.op("Add", [dark, light], "sum"), "flat"), "logits", (4, 4))
    network = graph.network()
    (stem,) = (block for block in prunable_blocks(network) if block.name == "stem")
    found, by_weight = (score(network, [stem], kind, images(8), Targets(TASK, labels(8))) for kind in ("fisher", "l2"))
    np.testing.assert_array_equal(found["stem"], by_weight["stem"])


def windowed() -> Network:
    """A channel-last layer on windows that are folded into the batch, as MobileViT has them."""
    graph = Graph((3, 8, 8), opset=18)
    x = graph.relu(graph.conv("image", "stem", (3, 4)), "stem_relu")
    x = graph.op("Transpose", [x], "last", perm=[0, 2, 3, 1])
    x = graph.op("Reshape", [x, graph.constant("fold", np.array([-1, 16, 4]))], "windows")
    x = graph.op("MatMul", [x, graph.constant("up.weight", graph.rng.normal(size=(4, 6)).astype(np.float32))], "up")
    x = graph.op(
        "MatMul",
        [graph.relu(x, "up_relu"), graph.constant("down.weight", graph.rng.normal(size=(6, 4)).astype(np.float32))],
        "down",
    )
    x = graph.op("Reshape", [x, graph.constant("unfold", np.array([-1, 64, 4]))], "unfolded")
    x = graph.op("ReduceMean", [x, graph.constant("axes", np.array([1]))], "pooled", keepdims=0)
    graph.gemm(x, "logits", (4, 4))
    return graph.network()


@pytest.mark.parametrize("kind", KINDS)
def test_windows_folded_into_the_batch_have_importance(kind: Kind) -> None:
    network = windowed()
    blocks = prunable_blocks(network)
    assert "up" in [block.name for block in blocks]
    found = score(network, blocks, kind, images(8), Targets(TASK, labels(8)))
    assert all(values.shape == (block.width,) for block, values in zip(blocks, found.values(), strict=True))
    if kind in ("taylor", "fisher"):
        np.testing.assert_array_equal(found["up"], score(network, blocks, "l2")["up"])


def test_batch_norm_importance_of_a_channel_last_layer_is_the_deviation_of_its_channels() -> None:
    network = windowed()
    (up,) = (block for block in prunable_blocks(network) if block.name == "up")
    batch = images(8)
    values = run_onnxruntime(network, batch, ["up"])["up"].reshape(-1, 6)
    np.testing.assert_allclose(score(network, [up], "batch_norm", batch)["up"], values.std(0), rtol=1e-4)


@pytest.mark.shared
@pytest.mark.parametrize("kind", KINDS)
def test_both_files_of_resnet20_rank_alike(shared: Callable[[str], Path], kind: Kind) -> None:
    folded, kept = (load_network(shared(f"models/resnet20-cifar10{form}.onnx")) for form in ("", "-bn"))
    part = load_dataset(shared("cifar10-small.parquet")).train
    some = preprocess(part.images[:64], Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    scores = [
        score(network, prunable_blocks(network), kind, some, Targets(TASK, part.labels[:64]))
        for network in (folded, kept)
    ]
    for name, values in scores[0].items():
        other = scores[1][name]
        # Equal but for rounding: units closer than a millionth of the largest score may change places.
        assert (np.diff(other[values.argsort()]) > -1e-6 * other.max()).all(), name
