"""Batch norms whose statistics are not those of the data: training starts from what the network does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compress_graphs import Graph

from compress.graph.module import TorchNetwork
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import relative_difference
from compress.network import Network
from compress.quantising.activations import channel_moments
from compress.training import restate
from compress.training.reestimate import reestimate
from compress.training.restate import FEW, restated

SHAPE = (3, 8, 8)


def images(count: int) -> Any:
    return np.random.default_rng(1).standard_normal((count, *SHAPE), np.float32)


def network(far: bool) -> Network:
    """A norm whose statistics are the data's; or far from them, its first channel one value of 1e-9 variance."""
    g = Graph(SHAPE)
    x = g.relu(g.norm(g.conv("image", "a", (3, 6)), "norm", 6), "ra")
    g.gemm(g.pool_flat(x, "flat"), "logits", (6, 4))
    if far:
        g.constants["a.weight"][0] = 0.0
        g.constants["a.bias"][0] = 0.0
        g.constants["norm.mean"][0], g.constants["norm.variance"][0] = -0.25, 1e-9
        return g.network()
    values = run_onnxruntime(g.network(), images(256), ["a"])["a"]
    g.constants["norm.mean"], g.constants["norm.variance"] = values.mean((0, 2, 3)), values.var((0, 2, 3))
    return g.network()


def difference(one: Any, other: Any) -> float:
    return float(relative_difference(np.asarray(one), np.asarray(other)))


def in_training(net: Network, batch: Any) -> Any:
    with torch.no_grad():
        return TorchNetwork(net).train()(torch.from_numpy(batch)).numpy()


def test_training_starts_from_what_the_network_does() -> None:
    given, batch = network(far=True), images(256)
    expected = run_onnxruntime(given, batch)["logits"]
    assert difference(in_training(given, batch), expected) > 0.5
    made = restated(given, batch)
    assert difference(run_onnxruntime(made, batch)["logits"], expected) < 1e-4
    assert difference(in_training(made, batch), expected) < 1e-3


def test_statistics_taken_again_leave_the_function() -> None:
    given, batch = network(far=True), images(256)
    module = TorchNetwork(restated(given, batch)).eval()
    reestimate(module, batch)
    expected = run_onnxruntime(given, batch)["logits"]
    assert difference(run_onnxruntime(module.to_network(), batch)["logits"], expected) < 0.05


def test_a_channel_that_says_nothing_stays_a_constant_in_training() -> None:
    """What is left of its filter is rounding; the small variance of its norm would make it, and its gradient, large."""
    given = network(far=True)
    noise = np.float32(1e-10) * np.random.default_rng(2).standard_normal((3, 3, 3), np.float32)
    weight = given.constants["a.weight"].copy()
    weight[0] = noise
    made = restated(given.with_constants({"a.weight": weight}), images(256))
    module = TorchNetwork(made).train()
    module(torch.from_numpy(images(64))).square().sum().backward()
    gradient = module.weights()["a.weight"].grad
    assert gradient is not None
    assert float(gradient[0].abs().max()) == 0.0
    assert float(gradient[1].abs().max()) > 0.0


def test_a_channel_that_is_zero_on_these_images_still_speaks_on_others() -> None:
    g = Graph(SHAPE)
    x = g.norm(g.relu(g.conv("image", "a", (3, 6)), "ra"), "norm", 6)
    g.gemm(g.pool_flat(x, "flat"), "logits", (6, 4))
    g.constants["a.weight"][0], g.constants["a.bias"][0] = 0.01, -1.0
    g.constants["norm.mean"][0] = g.constants["norm.beta"][0] = 0.0
    g.constants["norm.mean"][1] = 90.0
    given, bright = g.network(), images(32) * np.float32(500.0)
    made = restated(given, images(64))
    assert made is not given
    outputs = (run_onnxruntime(net, bright)["logits"] for net in (made, given))
    assert difference(*outputs) < 1e-3


def test_norms_that_are_near_the_data_stay_as_they_are() -> None:
    given = network(far=False)
    assert restated(given, images(256)) is given


def test_without_a_norm_there_is_nothing_to_do() -> None:
    g = Graph(SHAPE)
    g.gemm(g.pool_flat(g.conv("image", "a", (3, 6)), "flat"), "logits", (6, 4))
    given = g.network()
    assert restated(given, images(8)) is given


def test_few_images_are_enough_if_all_norms_are_clearly_near(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(given: Network, tensors: Any, shown: Any, batch: int) -> Any:
        seen.append(len(shown))
        return channel_moments(given, tensors, shown, batch)

    monkeypatch.setattr(restate, "channel_moments", counted)
    given, far = network(far=False), network(far=True)
    assert restated(given, images(256)) is given
    assert restated(far, images(256)) is not far
    moved = given.with_constants({"norm.mean": given.constants["norm.mean"] + np.float32(0.8)})
    assert restated(moved, images(256)) is moved
    assert seen == [FEW, FEW, 256, FEW, 256], "a norm that is near, but not clearly, is judged by all images"
