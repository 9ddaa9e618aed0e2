"""Statistics and the refits made from them, held against least squares on the activations themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compress_graphs import Graph, mobile, residual

from compress.errors import InvalidInput
from compress.graph.cut import cut
from compress.graph.groups import Block, prunable_blocks
from compress.graph.onnxruntime import run_onnxruntime
from compress.network import Network
from compress.pruning.importance import score
from compress.pruning.layer_error import idle, ls_error
from compress.pruning.reconstruct import reconstructed
from compress.pruning.statistics import Statistics
from compress.pruning.unfold_patches import Patches
from compress.scheme import Scheme
from compress.testing import example_images


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def keep_of(network: Network, share: float, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {
        block.name: np.sort(rng.choice(block.width, max(block.minimum, int(block.width * share)), replace=False))
        for block in prunable_blocks(network)
    }


def refit(network: Network, keep: dict[str, Any], count: int = 256, **settings: Any) -> tuple[Network, Network]:
    """(only cut, cut and refitted)."""
    blocks = prunable_blocks(network)
    statistics = Statistics.gather(network, blocks, example_images(count), **settings)
    smaller = cut(network, keep)
    return smaller, reconstructed(smaller, network, statistics, keep, blocks)


def logit_error(network: Network, reference: Network) -> float:
    batch = example_images(128, seed=11)
    seen, wanted = (run_onnxruntime(n, batch)["logits"] for n in (network, reference))
    return float(np.square(seen - wanted).mean() / wanted.var())


def chain() -> Network:
    """Two convolutions and a linear layer: one reader for each block."""
    graph = Graph((3, 8, 8))
    x = graph.relu(graph.conv("image", "first", (3, 8)), "first_relu")
    x = graph.relu(graph.conv(x, "second", (8, 6), strides=[2, 2]), "second_relu")
    graph.gemm(graph.op("Flatten", [x], "flat"), "logits", (6 * 16, 4))
    return graph.network()


@pytest.mark.parametrize(
    ("kernel", "strides", "dilations", "pads"),
    [((3, 3), (1, 1), (1, 1), (1, 1)), ((3, 3), (2, 2), (1, 1), (1, 1)), ((3, 2), (1, 2), (2, 1), (2, 0))],
)
def test_patches_are_what_unfold_gives(kernel: Any, strides: Any, dilations: Any, pads: Any) -> None:
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    patches = Patches(3, kernel, strides, dilations, (*pads, *pads))
    rows = patches.sample(x, 10_000, np.random.default_rng(0))
    expected = F.unfold(x, kernel, dilations, pads, strides).transpose(1, 2).reshape(-1, patches.features)
    torch.testing.assert_close(rows, expected)


def test_sampled_patches_are_some_of_all() -> None:
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    patches = Patches(3, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    some = patches.sample(x, 5, np.random.default_rng(0))
    assert some.shape == (10, 27)
    every = {tuple(row.tolist()) for row in patches.sample(x, 10_000, np.random.default_rng(0))}
    assert {tuple(row.tolist()) for row in some} <= every


def test_the_refit_is_the_least_squares_solution() -> None:
    """All positions are sampled, so the refit must match numpy's lstsq on the activations themselves."""
    network, batch = chain(), example_images(64)
    keep = {"first": np.array([0, 2, 3, 6])}
    blocks = prunable_blocks(network)
    statistics = Statistics.gather(network, blocks, batch)
    result = reconstructed(cut(network, keep), network, statistics, keep, blocks, ridge=1e-9)
    seen = run_onnxruntime(network, batch, ["first_relu", "second"])
    patches = Patches(4, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1))
    rows = patches.sample(torch.from_numpy(seen["first_relu"][:, keep["first"]]), 10_000, np.random.default_rng(0))
    x = np.hstack([rows.numpy(), np.ones((len(rows), 1))]).astype(np.float64)
    y = seen["second"].transpose(0, 2, 3, 1).reshape(-1, 6)
    solution = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(result.constants["second.weight"].reshape(6, -1), solution[:-1].T, atol=2e-3)
    np.testing.assert_allclose(result.constants["second.bias"], solution[-1], atol=2e-3)


@pytest.mark.parametrize(("build", "norms"), [(residual, False), (residual, True), (mobile, None)])
def test_a_refit_brings_outputs_closer(build: Any, norms: bool | None) -> None:
    network = build() if norms is None else build(norms=norms)
    smaller, better = refit(network, keep_of(network, 0.6))
    assert logit_error(better, network) < 0.7 * logit_error(smaller, network)
    assert {n: v.shape for n, v in better.constants.items()} == {n: v.shape for n, v in smaller.constants.items()}


def test_nothing_removed_is_nothing_changed() -> None:
    network = residual()
    keep = {block.name: np.arange(block.width) for block in prunable_blocks(network)}
    _, better = refit(network, keep)
    assert better.digest == network.digest


def test_a_constant_channel_moves_into_the_bias_whole() -> None:
    """A removed filter behind a norm still gives act(beta): the readers' biases take it over."""
    network = residual(norms=True)
    gamma = network.constants["a1_norm.gamma"].copy()
    beta = network.constants["a1_norm.beta"].copy()
    gamma[5], beta[5] = 0.0, 2.0
    network = network.with_constants({"a1_norm.gamma": gamma, "a1_norm.beta": beta})
    smaller, better = refit(network, {"a1": np.delete(np.arange(8), 5)})
    assert logit_error(smaller, network) > 1e-3
    # Not to the last digit: at the border zeros are padded in where the channel was 2.
    assert logit_error(better, network) < 0.15 * logit_error(smaller, network)


def with_bad_channels(spatial: int = 8) -> Network:
    """Of eight channels that a convolution reads, 2 is dead, 5 a large constant, and 6 moves a little about one."""
    graph = Graph((3, spatial, spatial))
    x = graph.relu(graph.conv("image", "first", (3, 8)), "first_relu")
    x = graph.relu(graph.conv(x, "second", (8, 6)), "second_relu")
    graph.gemm(graph.pool_flat(x, "flat"), "logits", (6, 4))
    network = graph.network()
    weight, bias = (network.constants[f"first.{role}"].copy() for role in ("weight", "bias"))
    weight[[2, 5]], bias[[2, 5, 6]] = 0.0, (-1.0, 3e4, 1e4)
    return network.with_constants({"first.weight": weight, "first.bias": bias})


@pytest.mark.parametrize(("spatial", "expected"), [(8, [2, 5]), (1, [2, 3, 5])])
def test_dead_and_constant_channels_go_first(spatial: int, expected: list[int]) -> None:
    """3 is a constant too, and the largest: where windows hang over the edge, it alone can stand in for the others."""
    network = with_bad_channels(spatial)
    weight, bias = (network.constants[f"first.{role}"].copy() for role in ("weight", "bias"))
    weight[3], bias[3] = 0.0, 4e4
    network = network.with_constants({"first.weight": weight, "first.bias": bias})
    batch = np.random.default_rng(0).normal(size=(64, 3, spatial, spatial)).astype(np.float32)
    method = Scheme.of([("filter_prune", {"importance": "l2"})])
    evidence = method.gather(network, batch)
    assert evidence.statistics is not None
    useless = idle(network, prunable_blocks(network), evidence.statistics)["first"]
    assert np.flatnonzero(useless).tolist() == expected
    assert (evidence.importance["first"][expected] == 0).all()
    bound = method.bind({"first": 8 - len(expected)})
    smaller = bound.rewrite(network, replace(evidence, masks={"first": ~useless}))
    seen, wanted = (run_onnxruntime(n, batch)["logits"] for n in (smaller, network))
    assert np.abs(seen - wanted).max() < 1e-2 * np.abs(wanted).max()


@pytest.mark.parametrize("ridge", [1e-4, 0.0])
def test_fits_stand_dead_constant_and_equal_channels(ridge: float) -> None:
    network = with_bad_channels()
    weight, bias = (network.constants[f"first.{role}"].copy() for role in ("weight", "bias"))
    weight[1], bias[1] = weight[0], bias[0]
    network = network.with_constants({"first.weight": weight, "first.bias": bias})
    blocks = prunable_blocks(network)
    method = Scheme.of([("filter_prune", {"ridge": ridge})])
    evidence = method.gather(network, example_images(256))
    assert evidence.statistics is not None
    for errors in ls_error(network, blocks, evidence.statistics, evidence.importance).values():
        assert np.isfinite(errors).all()
    for width in range(1, 8):
        made = method.bind({"first": width}).rewrite(network, evidence)
        assert all(np.isfinite(value).all() for value in made.constants.values())


def test_moments_of_a_large_constant_with_little_change_are_those_of_float64() -> None:
    network = with_bad_channels()
    blocks, batch = prunable_blocks(network), example_images(128)
    found = Statistics.gather(network, blocks, batch).moments["second.weight", "first_relu"]
    seen = run_onnxruntime(network, batch, ["first_relu"])["first_relu"].astype(np.float64)
    np.testing.assert_allclose(found.variance.reshape(8, 9)[:, 4], seen.var((0, 2, 3)), rtol=1e-3, atol=1e-9)
    assert found.gram is not None
    inner = found.gram[:-1, :-1] - np.outer(found.mean, found.mean)
    np.testing.assert_allclose(inner.diagonal(), found.variance, rtol=1e-3, atol=1e-6)


def test_only_means_are_used_where_no_gram_is_kept() -> None:
    network = residual()
    keep = keep_of(network, 0.6)
    smaller, shifted = refit(network, keep, max_features=1)
    np.testing.assert_array_equal(shifted.constants["a2.weight"], smaller.constants["a2.weight"])
    assert (shifted.constants["a2.bias"] != smaller.constants["a2.bias"]).all()
    assert logit_error(shifted, network) < logit_error(smaller, network)


def test_grouped_convolutions_get_the_mean_of_their_own_group() -> None:
    graph = Graph((3, 8, 8))
    x = graph.relu(graph.conv("image", "first", (3, 8)), "first_relu")
    x = graph.relu(graph.conv(x, "grouped", (8, 8), kernel=1, group=2), "grouped_relu")
    graph.gemm(graph.pool_flat(x, "flat"), "logits", (8, 4))
    network = graph.network()
    block = next(block for block in prunable_blocks(network) if block.name == "first")
    keep = {"first": np.arange(1, block.width)}
    smaller, shifted = refit(network, keep)
    mean = run_onnxruntime(network, example_images(256), ["first_relu"])["first_relu"].mean((0, 2, 3))
    removed = block.slots["first_relu", 1][0]
    lost = network.constants["grouped.weight"][:, 0].sum((1, 2)) * np.repeat(mean[removed], 4)
    change = shifted.constants["grouped.bias"] - smaller.constants["grouped.bias"]
    np.testing.assert_allclose(change, lost, atol=0.02)  # the statistics sample positions


def test_a_layer_without_bias_or_norm_gets_a_bias() -> None:
    graph = Graph((3, 8, 8))
    x = graph.relu(graph.conv("image", "first", (3, 8)), "first_relu")
    weight = graph.constant("second.weight", np.random.default_rng(0).normal(0, 0.2, (6, 8, 3, 3)).astype(np.float32))
    x = graph.relu(graph.op("Conv", [x, weight], "second", pads=[1, 1, 1, 1]), "second_relu")
    graph.gemm(graph.pool_flat(x, "flat"), "logits", (6, 4))
    network = graph.network()
    smaller, better = refit(network, {"first": np.arange(0, 8, 2)})
    assert len(better.node("second_node").inputs) == 3
    assert logit_error(better, network) < 0.5 * logit_error(smaller, network)


def test_statistics_survive_a_file_and_a_seed_repeats_them() -> None:
    network = residual()
    blocks = prunable_blocks(network)
    found, again, other = (Statistics.gather(network, blocks, example_images(300), seed=seed) for seed in (0, 0, 1))
    back = Statistics.from_arrays(found.to_arrays())
    assert back.moments.keys() == found.moments.keys() == again.moments.keys()
    for reader, moments in found.moments.items():
        for same in (back.moments[reader], again.moments[reader]):
            np.testing.assert_array_equal(moments.mean, same.mean)
            np.testing.assert_array_equal(moments.gram, same.gram)
    assert any((moments.mean != other.moments[reader].mean).any() for reader, moments in found.moments.items())


def test_no_images_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="at least one image"):
        Statistics.gather(residual(), prunable_blocks(residual()), example_images(0))


def measured_error(network: Network, block: Block, kept: Any, statistics: Statistics) -> float:
    """The variance of the reader's output that a refit does not explain, on the activations themselves."""
    keep = {block.name: kept}
    result = reconstructed(cut(network, keep), network, statistics, keep, [block], ridge=1e-9)
    batch = example_images(64)
    wanted, seen = (run_onnxruntime(n, batch, ["second"])["second"] for n in (network, result))
    return float(np.square(seen - wanted).sum() / np.square(wanted - wanted.mean((0, 2, 3), keepdims=True)).sum())


def test_ls_error_is_the_measured_error_of_every_width() -> None:
    network = chain()
    block = prunable_blocks(network)[0]
    statistics = Statistics.gather(network, [block], example_images(64))
    importance = score(network, [block], "l2")
    errors = ls_error(network, [block], statistics, importance)["first"]
    order = np.argsort(-importance["first"], kind="stable")
    assert errors.shape == (9,)
    assert errors[8] == 0.0
    assert errors[0] == pytest.approx(1.0, abs=1e-3)
    assert (np.diff(errors) <= 0).all()
    for width in (2, 4, 7):
        measured = measured_error(network, block, np.sort(order[:width]), statistics)
        assert errors[width] == pytest.approx(measured, rel=0.02, abs=1e-4)


def test_where_only_variances_are_known_units_count_alone() -> None:
    network = residual()
    blocks = prunable_blocks(network)
    statistics = Statistics.gather(network, blocks, example_images(64), max_features=1)
    scores = score(network, blocks, "l2")
    falling = ls_error(network, blocks, statistics, scores)
    rising = ls_error(network, blocks, statistics, {name: -values for name, values in scores.items()})
    for name, errors in falling.items():
        assert errors[-1] == 0.0
        # What one order keeps the other one cuts: together they always lose the same.
        np.testing.assert_allclose(errors + rising[name][::-1], errors[0])
