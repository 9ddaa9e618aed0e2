"""What counts as the same: rounding does, a wrong reading never."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import Graph

from compress import ops
from compress.errors import Disagreement, InvalidInput
from compress.graph.fold import check_same_function, fold_norms
from compress.graph.onnxruntime import runtime_noise
from compress.importing.agreement import CEILING, FACTOR, FLOOR, judge
from compress.importing.verify import verify
from compress.network import Network
from compress.ops.row import Row

ONE = np.ones(4, np.float32)


def test_the_floor_is_by_dtype_and_noise_raises_it_up_to_a_bound() -> None:
    off = ONE + np.float32(5e-4)
    assert not judge(off, ONE).holds
    assert judge(off, ONE, lambda: 2e-4).holds
    assert judge(off, ONE, lambda: 2e-4).tolerance == FACTOR * 2e-4
    assert judge(off, ONE, lambda: 1e9).tolerance == CEILING["float32"]
    assert not judge(ONE * np.float32(1.05), ONE, lambda: 1e9).holds
    assert judge(off.astype(np.float16), ONE.astype(np.float16)).holds
    assert not judge(off.astype(np.float64), ONE.astype(np.float64)).holds


def test_noise_is_asked_for_only_if_it_matters() -> None:
    def never() -> float:
        raise AssertionError

    assert judge(ONE + np.float32(FLOOR["float32"] / 2), ONE, never).holds


def test_integers_agree_in_levels_where_they_are_levels() -> None:
    levels = np.array([0, 7, 255], np.uint8)
    beside = np.array([1, 6, 254], np.uint8)
    assert judge(beside, levels, step=1.0).holds
    assert not judge(beside, levels).holds
    assert not judge(np.array([2, 7, 255], np.uint8), levels, step=1.0).holds


@pytest.mark.parametrize("wrong", [np.full(4, np.nan, np.float32), np.ones(3, np.float32)])
def test_no_noise_excuses_what_is_no_number_or_of_another_shape(wrong: np.ndarray) -> None:  # type: ignore[type-arg]
    assert not judge(wrong, ONE, lambda: np.inf).holds


def noisy(seed: int = 0) -> tuple[Graph, Network]:
    """A stem as Inception v4's whose norms add large offsets that the next convolution takes away again.

    What is left of the numbers is their last digits: folding a norm into its convolution, as onnxruntime's
    optimiser does, changes the outputs by more than 1e-4 of their scale.
    """
    g = Graph(3, 16, 16, seed=seed)
    x, width = "image", 3
    for name, out in (("first", 16), ("second", 16), ("third", 24)):
        x = g.conv(x, name, width, out, bias=False, pads=[0] * 4)
        weight = g.weights[f"{name}.weight"]
        if name != "first":
            weight -= weight.mean(axis=(1, 2, 3), keepdims=True)
        x = g.norm(x, f"{name}.norm", out)
        if name != "third":
            g.weights[f"{name}.norm.bias"] += np.float32(20_000)
            x = g.op("Relu", x)
        width = out
    return g, g.network(g.head(x, width))


def test_a_network_that_onnxruntime_itself_rounds_apart_is_taken() -> None:
    g, network = noisy()
    images = g.images(3)
    noise = runtime_noise(network.save(), {network.input_name: images})
    assert noise[network.output_name] > FLOOR["float32"], "not noisy enough to test anything"
    verify(network, images)


def wrong_row(op_type: str, network: Network, monkeypatch: pytest.MonkeyPatch) -> str:
    """Read all of these ops slightly wrongly; the first one's name."""
    row = ops._table()[op_type]

    def build(node: object, network: Network) -> object:
        honest = row.build(node, network)  # type: ignore[arg-type]  # passes through
        return lambda *given: honest(*given) * 1.0005  # type: ignore[operator]  # one tensor

    table = dict(ops._table())
    table[op_type] = Row(row.op_types, build, row.flow, row.resize, row.macs, row.trained, row.running, row.moded)  # type: ignore[arg-type]
    monkeypatch.setattr(ops, "_table", lambda: table)
    return next(node.name for node in network.nodes if node.op_type == op_type)


@pytest.mark.parametrize("op_type", ["Conv", "BatchNormalization", "Gemm"])
def test_a_wrong_row_is_found_in_a_noisy_network_too(op_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    g, network = noisy()
    expected = wrong_row(op_type, network, monkeypatch)
    with pytest.raises(Disagreement) as caught:
        verify(network, g.images(3))
    assert caught.value.node == expected


def test_norms_of_a_noisy_network_are_folded_and_a_wrong_fold_is_found() -> None:
    g, network = noisy()
    folded = fold_norms(network)
    assert "BatchNormalization" not in {node.op_type for node in folded.nodes}
    wrong = folded.with_constants({"third.weight": folded.constants["third.weight"] * np.float32(1.05)})
    with pytest.raises(InvalidInput, match="weights cannot be moved without loss: output '"):
        check_same_function(wrong, network, g.images(3), "weights cannot be moved without loss")


def on_the_edge(monkeypatch: pytest.MonkeyPatch, factor: float) -> tuple[Network, np.ndarray]:  # type: ignore[type-arg]
    """An int8 network of one layer, on samples that lie between two levels; our convolution is off by a factor."""
    g = Graph(1, 4, 4)
    step, zero = g.constant("step", np.float32(0.5)), g.constant("zero", np.uint8(0))
    weight = g.constant("weight", np.ones((1, 1, 1, 1), np.float32))
    levels = g.op("QuantizeLinear", g.op("Conv", "image", weight, kernel_shape=[1, 1]), step, zero)
    other = g.constant("other_step", np.float32(0.5)), g.constant("other_zero", np.uint8(0))
    network = g.network(g.op("Flatten", g.op("DequantizeLinear", levels, *other)))
    row = ops._table()["Conv"]

    def build(node: object, network: Network) -> object:
        honest = row.build(node, network)  # type: ignore[arg-type]  # passes through
        return lambda *given: honest(*given) * factor  # type: ignore[operator]  # one tensor

    table = dict(ops._table()) | {"Conv": Row(row.op_types, build, row.flow, row.resize)}  # type: ignore[arg-type]
    monkeypatch.setattr(ops, "_table", lambda: table)
    return network, (np.arange(48, dtype=np.float32).reshape(3, 1, 4, 4) + np.float32(0.5)) * np.float32(0.5)


def test_a_level_beside_is_rounding_in_an_int8_file(monkeypatch: pytest.MonkeyPatch) -> None:
    network, samples = on_the_edge(monkeypatch, 1 + 1e-6)
    assert verify(network, samples) > FLOOR["float32"], "no sample fell to another level: nothing was tested"


def test_a_wrong_row_is_found_in_an_int8_file(monkeypatch: pytest.MonkeyPatch) -> None:
    network, samples = on_the_edge(monkeypatch, 1.01)
    with pytest.raises(Disagreement) as caught:
        verify(network, samples)
    assert "Conv" in str(caught.value)
