"""Constant channels: silent before training, and the network computes what it did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compress_graphs import Graph

from compress.graph.groups import prunable_blocks
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import relative_difference
from compress.network import Network
from compress.pruning import settle
from compress.pruning.layer_error import idle
from compress.pruning.settle import settled
from compress.pruning.statistics import Statistics
from compress.quantising.activations import activations

SHAPE = (3, 8, 8)
LEVELS = (54.0, 3.0, -1.0)
"""Of the first channels; the last of them is zero behind the ReLU, as far as the images go."""


def images(count: int) -> Any:
    return np.random.default_rng(1).standard_normal((count, *SHAPE), np.float32)


def network(kernel: int = 3, levels: tuple[float, ...] = LEVELS) -> Network:
    """Its first channels say the same of every image; `kernel`: of the layer that reads them, padded if it is 3."""
    g = Graph(SHAPE)
    x = g.relu(g.conv("image", "a", (3, 8)), "ra")
    y = g.relu(g.conv(x, "b", (8, 6), kernel=kernel), "rb")
    g.gemm(g.pool_flat(y, "flat"), "logits", (6, 4))
    for channel, level in enumerate(levels):
        g.constants["a.weight"][channel] = 0.0
        g.constants["a.bias"][channel] = level
    return g.network()


def bright(net: Network, channel: int = 2) -> Network:
    """The network with a channel that is zero unless an image is far brighter than those of `images`."""
    weight = net.constants["a.weight"].copy()
    weight[channel] = 0.01
    return net.with_constants({"a.weight": weight})


def silent(net: Network) -> list[int]:
    """Channels of the first layer that are zero, and that the second one does not read."""
    made = np.abs(net.constants["a.weight"]).sum((1, 2, 3)) + np.abs(net.constants["a.bias"])
    read = np.abs(net.constants["b.weight"]).sum((0, 2, 3))
    assert np.array_equal(made == 0.0, read == 0.0)
    return np.flatnonzero(made == 0.0).tolist()


def difference(one: Network, other: Network, brightness: float = 1.0) -> float:
    shown = images(32) * np.float32(brightness)
    made, expected = (run_onnxruntime(net, shown)["logits"] for net in (one, other))
    return float(relative_difference(np.asarray(made), np.asarray(expected)))


def test_a_layer_without_padding_takes_constants_into_its_bias() -> None:
    given = network(kernel=1)
    made = settled(given, images(64))
    assert silent(made) == [0, 1]
    assert difference(made, given) < 1e-5


def test_at_the_edges_of_a_padded_layer_one_constant_speaks_for_all() -> None:
    given = network()
    made = settled(given, images(64))
    assert silent(made) == [1]
    assert difference(made, given) < 1e-5


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_channel_that_is_zero_on_these_images_still_speaks_on_others(kernel: int) -> None:
    given = bright(network(kernel))
    made = settled(given, images(64))
    np.testing.assert_array_equal(made.constants["a.weight"][2], given.constants["a.weight"][2])
    assert difference(made, given) < 1e-5
    assert difference(made, given, brightness=500.0) < 1e-5


def test_what_is_silent_goes_first_and_nothing_is_lost_by_it() -> None:
    made = settled(network(), images(64))
    blocks = prunable_blocks(made)
    useless = idle(made, blocks, Statistics.gather(made, blocks, images(64)))
    assert np.flatnonzero(useless["a"]).tolist()[-2:] == [1, 2], "the silent and the dead one"


def test_a_network_without_a_constant_channel_stays_as_it_is() -> None:
    given = network(levels=())
    assert settled(given, images(64)) is given


def test_one_channel_stays_of_a_layer_that_says_nothing() -> None:
    given = network(kernel=1, levels=(1.0,) * 8)
    made = settled(given, images(64))
    assert len(silent(made)) == 7
    assert difference(made, given) < 1e-5


def test_what_is_settled_stays_so() -> None:
    made = settled(network(), images(64))
    assert settled(made, images(64)) is made


def test_channels_are_watched_until_none_is_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first channels of `network` are constant on all images; without them one batch is enough."""
    runs: list[int] = []

    def counted(given: Network, tensors: Any, shown: Any, batch: int) -> Any:
        for values in activations(given, tensors, shown, batch):
            runs.append(batch)
            yield values

    monkeypatch.setattr(settle, "activations", counted)
    plain = network(levels=())
    assert settled(plain, images(64), batch=16) is plain
    assert runs == [16]
    settled(network(), images(64), batch=16)
    assert runs == [16] * 5
