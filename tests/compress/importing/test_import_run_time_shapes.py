"""Chains of integers that are computed from the batch at run time, through every kind of op that reads them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx_graphs import Graph

from compress.graph.cut import cut
from compress.graph.groups import groups, prunable_blocks
from compress.importing.normalise import load_network
from compress.importing.verify import verify
from compress.network import Network

WIDTH = 6


def batch_of(g: Graph, x: str) -> str:
    """(1,) int64, the batch."""
    return str(g.op("Gather", g.op("Shape", x), g.ints("first", 0), axis=0))


def row(g: Graph) -> str:
    return g.random("row", 1, WIDTH)


def laid_flat(g: Graph, batch: str) -> str:
    """Positions of the samples in one row, and back: a leading 1 that is no batch."""
    end = g.op("Squeeze", batch, g.ints("axis", 0))
    rows = g.op("Range", g.constant("start", np.int64(0)), end, g.constant("step", np.int64(1)))
    flat = g.op("Reshape", rows, g.ints("flat", 1, -1))
    return str(g.op("Cast", g.op("Transpose", flat, perm=[1, 0]), to=TensorProto.FLOAT))


def expanded(g: Graph, batch: str) -> str:
    return str(g.op("Expand", row(g), g.op("Concat", batch, g.ints("width", WIDTH), axis=0)))


def arithmetic(g: Graph, batch: str) -> str:
    times = g.op("Mul", batch, g.ints("four", 4))
    more = g.op("Sub", g.op("Add", times, g.ints("eight", 8)), g.ints("eight_too", 8))
    return expanded(g, g.op("Div", more, g.ints("four_too", 4)))


def constant_first(g: Graph, batch: str) -> str:
    return expanded(g, g.op("Sub", g.ints("hundred", 100), g.op("Sub", g.ints("hundred_too", 100), batch)))


def cast(g: Graph, batch: str) -> str:
    there = g.op("Cast", batch, to=TensorProto.FLOAT)
    return expanded(g, g.op("Cast", g.op("Mul", there, g.constant("one", np.float32(1))), to=TensorProto.INT64))


def counted(g: Graph, batch: str) -> str:
    end = g.op("Squeeze", batch, g.ints("axis", 0))
    rows = g.op("Range", g.constant("start", np.int64(0)), end, g.constant("step", np.int64(1)))
    return str(g.op("Cast", g.op("Unsqueeze", rows, g.ints("last", 1)), to=TensorProto.FLOAT))


def chosen(g: Graph, batch: str) -> str:
    return expanded(g, g.op("Where", g.op("Greater", batch, g.ints("none", 0)), batch, g.ints("one", 1)))


def filled(g: Graph, batch: str) -> str:
    value = numpy_helper.from_array(np.array([0.5], np.float32))
    return str(g.op("ConstantOfShape", g.op("Concat", batch, g.ints("width", WIDTH), axis=0), value=value))


def sliced(g: Graph, batch: str) -> str:
    g.random("rows", 8, WIDTH)
    return str(g.op("Slice", "rows", g.ints("from", 0), batch, g.ints("along", 0)))


def started(g: Graph, batch: str) -> str:
    """The last rows: where they start is computed."""
    g.random("rows", 8, WIDTH)
    start = g.op("Sub", g.ints("eight", 8), batch)
    return str(g.op("Slice", "rows", start, g.ints("to", 8), g.ints("along", 0)))


def by_rows_of_floats(g: Graph, batch: str) -> str:
    """Integers through ops whose rows are mostly given floats."""
    x = g.op("Neg", g.op("Neg", g.op("Abs", g.op("Identity", batch))))
    x = g.op("Clip", x, g.constant("low", np.int64(0)))
    x = g.op("Pow", x, g.ints("power", 1))
    x = g.op("Transpose", g.op("Reshape", x, g.ints("shape", 1, 1)))
    x = g.op("Pad", g.op("Squeeze", x, g.ints("ax", 0)), g.ints("pads", 0, 1), g.constant("value", np.int64(WIDTH)))
    return str(g.op("Expand", row(g), x))


CHAINS = [
    laid_flat, expanded, arithmetic, constant_first, cast, counted, chosen, filled, sliced, started, by_rows_of_floats,
]  # fmt: skip


def network_of(chain: Callable[[Graph, str], str]) -> tuple[Graph, Network]:
    """A convolution that can be cut, and a layer to whose output the chain's result is added."""
    g = Graph(3, 8, 8)
    x = g.op("Relu", g.conv("image", "free", 3, 8))
    x = g.op("Flatten", g.op("GlobalAveragePool", g.conv(x, "touched", 8, WIDTH)))
    x = g.op("Add", x, chain(g, batch_of(g, x)))
    return g, g.network(g.gemm(x, "head", WIDTH, 5))


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_is_taken_frozen_and_followed(chain: Callable[[Graph, str], str]) -> None:
    g, network = network_of(chain)
    assert "Shape" in {node.op_type for node in network.nodes}, "folded away: the test tests nothing"
    assert not network.warnings
    verify(network, g.images(5))
    named = {group.name: group for group in groups(network)}
    assert named["free"].prunable
    assert "Shape" in named["touched"].reason
    smaller = cut(network, {block.name: np.arange(3) for block in prunable_blocks(network)})
    verify(smaller, g.images(5))
    verify(load_network(smaller.save()), g.images(5))


def test_an_optional_output_that_is_left_out_moves_no_other() -> None:
    """A GRU of which only the last state is read: its first output has no name."""
    g = Graph(3, 8, 8)
    x = g.op("Reshape", g.conv("image", "a", 3, 6), g.ints("steps", 0, 8, 48))
    x = g.op("Transpose", x, perm=[1, 0, 2])
    weights = [g.random("w", 1, 12, 48), g.random("r", 1, 12, 4), g.random("b", 1, 24)]
    g.op("GRU", x, *weights, hidden_size=4, linear_before_reset=1)
    g.nodes[-1].output[:] = ["", "last"]
    network = g.network(g.gemm(g.op("Squeeze", "last", g.ints("ax", 0)), "head", 4, 5))
    verify(network, g.images(3))
