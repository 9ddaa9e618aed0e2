"""Groups and cuts, one topology a test: what is left computes what the zeroed reference computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_graphs import Graph

from compress.errors import InvalidInput
from compress.graph.cut import cut
from compress.graph.groups import Block, groups
from compress.graph.module import TorchNetwork
from compress.graph.onnxruntime import run_onnxruntime
from compress.graph.shapes import infer_types
from compress.importing.agreement import relative_difference
from compress.network import Network
from compress.testing import zeroed

Built = tuple[Graph, Network]


def plain() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "a", 3, 6))
    return g, g.network(g.head(g.op("Relu", g.conv(x, "b", 6, 8)), 8))


def batch_norm() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.norm(g.conv("image", "a", 3, 6, bias=False), "na", 6))
    return g, g.network(g.head(g.op("Relu", g.norm(g.conv(x, "b", 6, 8), "nb", 8)), 8))


def residual() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "a", 3, 6))
    y = g.conv(g.op("Relu", g.conv(x, "b", 6, 10)), "c", 10, 6)
    return g, g.network(g.head(g.op("Relu", g.op("Add", y, x)), 6))


def concat() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "a", 3, 6))
    y = g.op("Concat", g.conv(x, "b", 6, 4), x, g.conv(x, "c", 6, 5), axis=1)
    return g, g.network(g.head(g.op("LeakyRelu", g.norm(y, "n", 15), alpha=0.1), 15))


def split() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("HardSwish", g.conv("image", "a", 3, 8))
    left, right = g.op("Split", x, g.ints("sizes", 3, 5), outputs=2, axis=1)
    y = g.op("Concat", g.conv(right, "b", 5, 4), g.op("Sigmoid", left), axis=1)
    return g, g.network(g.head(g.conv(y, "c", 7, 6), 6))


def split_gated() -> Built:
    """A gated unit: both halves must lose the same channels."""
    g = Graph(3, 8, 8)
    left, right = g.op("Split", g.conv("image", "a", 3, 8), outputs=2, axis=1, num_outputs=2)
    return g, g.network(g.head(g.op("Mul", left, g.op("HardSigmoid", right)), 4))


def option_a() -> Built:
    """Strided Slice and channel Pad, two stages on."""
    g = Graph(3, 16, 16)
    x = g.op("Relu", g.conv("image", "a", 3, 4))
    for stage, width in enumerate((4, 8)):
        y = g.conv(x, f"s{stage}.1", width, 2 * width, strides=[2, 2])
        y = g.conv(g.op("Relu", y), f"s{stage}.2", 2 * width, 2 * width)
        end = 1 << 62
        steps = [
            g.ints(f"{name}{stage}", *v) for name, v in (("b", (0, 0)), ("e", (end, end)), ("x", (2, 3)), ("t", (2, 2)))
        ]
        short = g.op("Slice", x, *steps)
        front = width // 2
        short = g.op("Pad", short, g.ints(f"p{stage}", 0, front, 0, 0, 0, width - front, 0, 0))
        x = g.op("Relu", g.op("Add", y, short))
    return g, g.network(g.head(x, 16))


def channel_slice() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "a", 3, 8))
    y = g.op("Slice", x, g.ints("b", -6), g.ints("e", 7), g.ints("x", 1))
    return g, g.network(g.head(g.op("Concat", g.conv(y, "b", 5, 3), x, axis=1), 11))


def flatten() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("MaxPool", g.conv("image", "a", 3, 6), kernel_shape=[2, 2], strides=[2, 2])
    x = g.op("Relu", g.gemm(g.op("Flatten", x), "f", 96, 12))
    return g, g.network(g.gemm(x, "h", 12, 5))


def reshape_transpose() -> Built:
    """NHWC flattening: the channel is the fastest index."""
    g = Graph(3, 4, 4)
    x = g.op("Transpose", g.conv("image", "a", 3, 6), perm=[0, 2, 3, 1])
    return g, g.network(g.gemm(g.op("Reshape", x, g.ints("s", 0, -1)), "h", 96, 5))


def depthwise() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.norm(g.conv("image", "a", 3, 6), "n0", 6))
    x = g.op("Clip", g.conv(x, "d", 6, 6, group=6), g.constant("lo", np.float32(0)), g.constant("hi", np.float32(6)))
    return g, g.network(g.head(g.conv(x, "p", 6, 8, kernel=1), 8))


def depthwise_multiplier() -> Built:
    g = Graph(3, 8, 8)
    x = g.conv(g.op("Relu", g.conv("image", "a", 3, 4)), "d", 4, 8, group=4)
    return g, g.network(g.head(g.op("Relu", x), 8))


def grouped() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "a", 3, 8))
    x = g.op("Relu", g.conv(x, "g", 8, 12, group=4))
    return g, g.network(g.head(g.conv(x, "b", 12, 6), 6))


def dilated_asymmetric() -> Built:
    g = Graph(3, 9, 9)
    x = g.conv("image", "a", 3, 6, dilations=[2, 2], pads=[2, 1, 0, 3])
    x = g.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)
    return g, g.network(g.head(g.op("Relu", x), 6))


def shuffle() -> Built:
    """Channel shuffle by Reshape, Transpose, Reshape between grouped convolutions."""
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv(g.op("Relu", g.conv("image", "a", 3, 8)), "g", 8, 8, group=2))
    x = g.op("Reshape", x, g.ints("s1", -1, 2, 4, 8, 8))
    x = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3, 4]), g.ints("s2", -1, 8, 8, 8))
    return g, g.network(g.head(g.conv(x, "b", 8, 6), 6))


def gather_shuffle() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "a", 3, 6))
    x = g.op("Gather", x, g.ints("i", 5, 1, 3, 0, 2, 4), axis=1)
    return g, g.network(g.head(g.op("Relu", g.conv(x, "b", 6, 6)), 6))


def squeeze_excite() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("HardSwish", g.conv("image", "a", 3, 8))
    s = g.op("ReduceMean", x, g.ints("ax", 2, 3), keepdims=1)
    s = g.op("Relu", g.conv(s, "r", 8, 4, kernel=1))
    s = g.op("HardSigmoid", g.conv(s, "e", 4, 8, kernel=1))
    return g, g.network(g.head(g.op("Mul", x, s), 8))


def prelu() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("PRelu", g.conv("image", "a", 3, 6), g.random("slope", 6, 1, 1))
    x = g.op("Div", g.op("Sub", x, g.random("shift", 1, 6, 1, 1)), g.constant("scale", np.full((6, 1, 1), 2.0, "f")))
    return g, g.network(g.head(x, 6))


def matmul_add() -> Built:
    g = Graph(12)
    x = g.op("Add", g.op("MatMul", "image", g.random("m1", 12, 10)), g.random("b1", 10))
    x = g.op("Unsqueeze", g.op("Relu", x), g.ints("u", 2))
    x = g.op("Squeeze", x, g.ints("q", 2))
    return g, g.network(g.op("Softmax", g.op("MatMul", x, g.random("m2", 10, 5)), axis=-1))


def tied() -> Built:
    """One weight read twice by convolutions: the same role, one united group."""
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "a", 3, 6))
    y = g.op("Relu", g.conv(x, "b", 6, 6))
    y = g.op("Relu", g.op("Conv", y, "b.weight", "b.bias", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    return g, g.network(g.head(y, 6))


def two_readers() -> Built:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "a", 3, 6))
    left, right = g.head(x, 6), g.op("Relu", g.conv(x, "b", 6, 4))
    pooled = g.op("Flatten", g.op("GlobalMaxPool", right))
    return g, g.network(g.op("Add", left, g.gemm(pooled, "h2", 4, 5)))


TOPOLOGIES: tuple[Callable[[], Built], ...] = (
    plain, batch_norm, residual, concat, split, split_gated, option_a, channel_slice, flatten, reshape_transpose,
    depthwise, depthwise_multiplier, grouped, dilated_asymmetric, shuffle, gather_shuffle, squeeze_excite, prelu,
    matmul_add, tied, two_readers,
)  # fmt: skip
BUILT = {build.__name__: build() for build in TOPOLOGIES}


def blocks_of(network: Network) -> list[Block]:
    return [block for group in groups(network) for block in group.blocks if block.prunable]


def random_keep(network: Network, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        block.name: rng.choice(block.width, rng.integers(block.minimum, block.width + 1), replace=False)
        for block in blocks_of(network)
    }


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", BUILT)
def test_a_cut_computes_what_the_zeroed_reference_computes(name: str, seed: int) -> None:
    graph, network = BUILT[name]
    keep, images = random_keep(network, seed), graph.images()
    smaller = cut(network, keep)
    expected = run_onnxruntime(zeroed(network, keep), images)[network.output_name]
    assert relative_difference(run_onnxruntime(smaller, images)[network.output_name], expected) < 1e-4
    with torch.no_grad():
        assert relative_difference(TorchNetwork(smaller).eval()(torch.from_numpy(images)).numpy(), expected) < 1e-4
    assert dict(infer_types(smaller).types) == dict(smaller.types)


@pytest.mark.parametrize("name", BUILT)
def test_every_topology_has_something_to_prune_and_gets_smaller(name: str) -> None:
    _, network = BUILT[name]
    found = blocks_of(network)
    assert found
    keep = {block.name: np.arange(max(block.minimum, block.width // 2)) for block in found}
    before, after = (sum(v.size for v in n.constants.values()) for n in (network, cut(network, keep)))
    assert after < 0.75 * before


def names(network: Network) -> dict[str, int]:
    return {block.name: block.width for block in blocks_of(network)}


def test_option_a_couples_the_stages_as_blocks_of_one_group() -> None:
    _, network = BUILT["option_a"]
    stream = next(group for group in groups(network) if group.name == "a")
    assert [(b.name, b.width, b.minimum) for b in stream.blocks] == [("a", 4, 1), ("s0.2", 4, 0), ("s1.2", 8, 0)]
    first = stream.blocks[0].slots
    assert first[("s0.2.weight", 0)].ravel().tolist() == [2, 3, 4, 5]
    assert first[("s1.2.weight", 0)].ravel().tolist() == [6, 7, 8, 9]


def test_a_grouped_convolution_loses_the_same_position_of_every_group() -> None:
    _, network = BUILT["grouped"]
    by_name = {block.name: block for block in blocks_of(network)}
    assert by_name["a"].width == 2
    assert by_name["a"].slots[("a.weight", 0)].tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert by_name["g"].slots[("g.weight", 0)].tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_flatten_maps_a_channel_to_its_pixels() -> None:
    _, network = BUILT["flatten"]
    block = next(b for b in blocks_of(network) if b.name == "a")
    assert block.slots[("f.weight", 1)].tolist() == [list(range(16 * c, 16 * c + 16)) for c in range(6)]


def test_the_output_is_frozen_with_a_reason() -> None:
    _, network = BUILT["plain"]
    last = groups(network)[-1]
    assert not last.prunable
    assert last.reason == "output of the network"
    assert last.width == 5


def test_an_op_without_a_row_freezes_its_group_only() -> None:
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "a", 3, 6))
    odd = g.op("Gelu", g.conv(x, "b", 6, 6), domain="com.microsoft")
    network = g.network(g.head(g.op("Relu", g.conv(odd, "c", 6, 8)), 8))
    by_name = {group.name: group for group in groups(network)}
    assert by_name["a"].prunable
    assert by_name["c"].prunable
    assert not by_name["b"].prunable
    assert "Gelu" in by_name["b"].reason
    module, images = TorchNetwork(network).eval(), g.images()
    assert len(module.opaque) == 1
    with torch.no_grad():
        seen = module(torch.from_numpy(images)).numpy()
    assert relative_difference(seen, run_onnxruntime(network, images)[network.output_name]) < 1e-4
    smaller = cut(network, {"a": [0, 2], "c": [1, 5, 6]})
    assert run_onnxruntime(smaller, images)[network.output_name].shape == (4, 5)


def test_softmax_over_channels_freezes_them() -> None:
    g = Graph(3, 8, 8)
    x = g.op("Softmax", g.conv("image", "a", 3, 6), axis=1)
    network = g.network(g.head(g.conv(x, "b", 6, 8), 8))
    by_name = {group.name: group for group in groups(network)}
    assert "mixes the channels" in by_name["a"].reason
    assert by_name["b"].prunable


@pytest.mark.parametrize(
    ("keep", "seen"),
    [({"nothing": [0]}, "nothing"), ({"a": [6]}, [6]), ({"a": []}, 0), ({"head": [0, 1]}, 2)],
)
def test_a_wrong_cut_names_the_block_and_the_value(keep: dict[str, list[int]], seen: object) -> None:
    _, network = BUILT["plain"]
    with pytest.raises(InvalidInput) as error:
        cut(network, keep)
    assert error.value.field == "keep"
    assert error.value.value == seen


def test_every_frozen_group_has_a_reason() -> None:
    g = Graph(3, 8, 8)
    x = g.conv(g.op("Relu", g.conv("image", "one", 3, 1)), "stem", 1, 8)
    for i in range(2):
        y = g.conv(x, f"grouped{i}", 8, 8, kernel=1, group=2)
        y = g.op("Reshape", y, g.ints(f"split{i}", -1, 2, 4, 8, 8))
        y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3, 4]), g.ints(f"join{i}", -1, 8, 8, 8))
        x = g.op("Add", x, g.conv(g.conv(y, f"depth{i}", 8, 8, group=8), f"point{i}", 8, 8, kernel=1, group=2))
    found = {group.name: group for group in groups(g.network(g.head(x, 8)))}
    assert not found["one"].prunable
    assert "one channel" in found["one"].reason
    assert not found["grouped0"].prunable
    assert "all at once" in found["grouped0"].reason
    assert [group.name for group in found.values() if not group.prunable and not group.reason] == []
