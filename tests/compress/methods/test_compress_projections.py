"""Projections: idempotent, nearest by brute force, alike for folded and unfolded networks, composed in order."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pytest
from compress_graphs import residual

from compress.counting.cost import cost, sparse_bytes
from compress.counting.op_templates import ops
from compress.errors import InvalidInput
from compress.evidence import Evidence
from compress.graph.cut import cut
from compress.graph.fold import fold_norms
from compress.graph.groups import prunable_blocks
from compress.graph.onnxruntime import run_onnxruntime
from compress.half_floats import LARGEST
from compress.importing.agreement import relative_difference
from compress.method import Operator
from compress.methods import weight_prune
from compress.methods.weight_prune import lamp, largest
from compress.network import Array, Network
from compress.pruning.effective_weights import effective, effective_weights, layer_weights, stored
from compress.scheme import BoundScheme, Scheme
from compress.testing import example_images, example_network
from hw_profiles.runtimes import layout_of, load
from hw_profiles.tables.features import features_of
from search.space import Value

METHODS = ("filter_prune", "weight_prune", "fp16", "int8_ptq")
VALUES: dict[str, Value] = {"stem": 3, "a1": 2, "weight_prune": 0.3, "fp16": "fp16", "int8_ptq": "int8"}


def bound(*names: str) -> BoundScheme:
    return Scheme.of([(name, {}) for name in names]).bind(VALUES)


def operator(name: str) -> Operator:
    return bound(name).operators[0]


def distance(a: dict[str, Array], b: dict[str, Array]) -> float:
    return float(sum(np.square(a[name] - b[name]).sum() for name in b))


@pytest.mark.parametrize("names", [*((name,) for name in METHODS), METHODS[:3], (*METHODS[:2], "int8_ptq")])
def test_a_projection_is_idempotent_and_leaves_what_it_was_given(names: tuple[str, ...]) -> None:
    network = example_network()
    weights = effective_weights(network)
    before = {name: value.copy() for name, value in weights.items()}
    once = bound(*names).project(network, weights)
    twice = bound(*names).project(network, once)
    assert bound(*names).projected(network)
    for name, value in once.items():
        np.testing.assert_array_equal(twice[name], value, err_msg=name)
        np.testing.assert_array_equal(weights[name], before[name], err_msg=name)
        assert value.shape == weights[name].shape
    assert any(not np.array_equal(once[name], before[name]) for name in bound(*names).projected(network))


@pytest.mark.parametrize("count", range(1, 8))
def test_in_a_layer_no_choice_of_so_many_weights_is_nearer(count: int) -> None:
    rng = np.random.default_rng(count)
    layers = [rng.integers(-4, 5, shape).astype(float) for shape in ((2, 2), (3,))]
    masks = largest([lamp(layer) for layer in layers], count / 7)
    assert sum(mask.sum() for mask in masks) == count
    for layer, mask in zip(layers, masks, strict=True):
        every = combinations(range(layer.size), int(mask.sum()))
        assert np.square(layer[~mask]).sum() == min(np.square(np.delete(layer, chosen)).sum() for chosen in every)


def test_one_weight_stays_and_the_first_of_equals() -> None:
    (mask,) = largest([np.ones((2, 3))], 1e-3)
    assert mask.tolist() == [[True, False, False], [False, False, False]]
    (mask,) = largest([np.array([0.0, 0.0, 2.0])], 2 / 3)
    assert mask.tolist() == [True, False, True]


def test_no_choice_of_units_is_nearer_than_that_of_filter_prune() -> None:
    network = residual(norms=True)
    weights = effective_weights(network)
    block = prunable_blocks(network)[0]
    (own,) = Scheme.of([("filter_prune", {})]).bind({block.name: 5}).operators
    made = own.project(network, weights)
    names = [tensor for tensor, _ in block.filters]

    def without(gone: Iterable[int]) -> dict[str, Array]:
        other = {name: weights[name].copy() for name in names}
        for tensor, axis in block.filters:
            np.moveaxis(other[tensor], axis, 0)[block.slots[tensor, axis][list(gone)].reshape(-1)] = 0
        return other

    every = [distance(without(gone), {n: weights[n] for n in names}) for gone in combinations(range(block.width), 3)]
    assert distance(made, {name: weights[name] for name in names}) == pytest.approx(min(every))
    assert set(own.projected(network)) == set(names)


def test_a_unit_that_filter_prune_projects_away_can_be_cut_without_loss() -> None:
    network = residual(norms=True)
    block = prunable_blocks(network)[0]
    (own,) = Scheme.of([("filter_prune", {})]).bind({block.name: 5}).operators
    theta = network.with_constants(stored(network, own.project(network, effective_weights(network))))
    tensor, axis = block.filters[0]
    rows = np.abs(np.moveaxis(theta.constants[tensor], axis, 0)).reshape(network.shape(tensor)[axis], -1).sum(1)
    alive = np.flatnonzero(rows[block.slots[tensor, axis][:, 0]])
    assert len(alive) == 5
    images = example_images(4)
    smaller = run_onnxruntime(cut(theta, {block.name: alive}), images)[network.output_name]
    assert relative_difference(smaller, run_onnxruntime(theta, images)[network.output_name]) < 1e-5


def test_fp16_takes_the_nearest_number_that_there_is() -> None:
    network = example_network()
    name = layer_weights(network)[0]
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)
    every = every[np.isfinite(every)]
    given = effective_weights(network)
    given[name] = np.random.default_rng(0).normal(0, 1e5, given[name].shape)
    made = operator("fp16").project(network, given)[name]
    nearest = np.abs(given[name].reshape(-1, 1) - every).min(axis=1)
    np.testing.assert_allclose(np.abs(made - given[name]).reshape(-1), nearest)
    assert np.abs(made).max() == LARGEST


def test_int8_takes_the_nearest_level_of_each_channels_grid() -> None:
    network = example_network()
    given = effective_weights(network)
    for name in operator("int8_ptq").projected(network):
        made = operator("int8_ptq").project(network, given)[name]
        for channel, row in zip(made, given[name], strict=True):
            grid = np.arange(-127, 128) * np.abs(row).max() / 127
            nearest = np.abs(row.reshape(-1, 1) - grid).min(axis=1)
            np.testing.assert_allclose(np.abs(channel - row).reshape(-1), nearest, atol=1e-7)


def test_effective_weights_are_those_of_the_folded_network_and_come_back() -> None:
    network = residual(norms=True)
    folded = fold_norms(network)
    for name, value in effective(network).items():
        np.testing.assert_allclose(value, folded.constants[name], rtol=1e-5)
    for name, value in stored(network, effective(network)).items():
        np.testing.assert_allclose(value, network.constants[name], rtol=1e-5)


def test_a_weight_behind_a_norm_without_strength_comes_back_as_zero() -> None:
    network = residual(norms=True)
    name, gamma = "stem.weight", next(key for key in network.constants if key.startswith("stem") and "gamma" in key)
    still = network.with_constants({gamma: np.zeros_like(network.constants[gamma])})
    assert not stored(still, effective(still))[name].any()


def test_folded_and_unfolded_lose_the_same_weights() -> None:
    network = residual(norms=True)
    method = bound("weight_prune")
    pruned = method.rewrite(network, Evidence())
    folded = method.rewrite(fold_norms(network), Evidence())
    for name in layer_weights(network):
        np.testing.assert_array_equal(pruned.constants[name] != 0, folded.constants[name] != 0, err_msg=name)
        kept = pruned.constants[name] != 0
        np.testing.assert_array_equal(pruned.constants[name][kept], network.constants[name][kept])
    total = sum(network.constants[name].size for name in layer_weights(network))
    assert sum(np.count_nonzero(pruned.constants[name]) for name in layer_weights(network)) == round(0.3 * total)


def test_weights_go_before_bits_whatever_the_schemes_order() -> None:
    network = example_network()
    images = example_images(16)
    first = Scheme.of([(name, {}) for name in ("fp16", "int8_ptq", "weight_prune")])
    values = {**VALUES, "fp16": "fp32"}
    stages = [step.stage for step in first.bind(values).steps()]
    assert stages == ["sparsity", "precision", "storage"]
    made = first.bind(values).rewrite(network, first.gather(network, images))
    levels = [value for name, value in made.constants.items() if name.endswith("weight/levels")]
    zeros = sum(int((value == 0).sum()) for value in levels) / sum(value.size for value in levels)
    assert zeros > 0.69


def test_weights_in_fp16_take_half_and_run_in_onnxruntime() -> None:
    network = example_network(width=24)
    half = bound("fp16").rewrite(network, Evidence())
    assert half.constants["stem.weight/half"].dtype == np.float16
    assert cost(half).size_bytes < 0.62 * cost(network).size_bytes
    images = example_images(4)
    made, expected = (run_onnxruntime(n, images)[network.output_name] for n in (half, network))
    assert 0 < relative_difference(made, expected) < 5e-3


@pytest.mark.parametrize("runtime", ["onnxruntime", "simulated"])
def test_the_kernels_of_fp16_are_those_of_fp32(runtime: str) -> None:
    network = fold_norms(example_network())
    half = bound("fp16").rewrite(network, Evidence())
    before, after = (ops(each, load(runtime).fused(each.save()), layout_of(runtime)) for each in (network, half))
    same = ("kind", "in_channels", "out_channels", "kernel", "macs", "io_bytes")
    columns = [sorted([dict(features_of(op))[key] for key in same] for op in each) for each in (before, after)]
    assert columns[0] == columns[1]
    assert sum(features_of(op)["weight_bytes"] for op in after) < 0.6 * sum(
        features_of(op)["weight_bytes"] for op in before
    )


def test_layers_kept_in_float32() -> None:
    network = example_network()
    kept = Scheme.of([("fp16", {"keep_float": ["stem"]})]).bind(VALUES).rewrite(network, Evidence())
    assert kept.constants["stem.weight"].dtype == np.float32
    assert kept.constants["a1.weight/half"].dtype == np.float16
    with pytest.raises(InvalidInput, match="nowhere"):
        Scheme.of([("fp16", {"keep_float": ["nowhere"]})]).bind(VALUES).rewrite(network, Evidence())


@pytest.mark.parametrize("density", [0.0, 1.5, "half", True])
def test_a_density_that_there_is_not_is_refused(density: Value) -> None:
    with pytest.raises(InvalidInput, match="density") as caught:
        Scheme.of([("weight_prune", {})]).bind({"weight_prune": density})
    assert caught.value.value == density


def test_a_network_without_layers_cannot_lose_weights() -> None:
    network = int8_network()
    assert Scheme.of([("weight_prune", {})]).knobs(network, {}) == ()
    with pytest.raises(InvalidInput, match="no float32 layer weights"):
        weight_prune.LampOperator(0.5).rewrite(network, Evidence())


def int8_network() -> Network:
    network = example_network()
    scheme = Scheme.of([("int8_ptq", {})])
    return scheme.bind({"int8_ptq": "int8"}).rewrite(network, scheme.gather(network, example_images(8)))


def test_stored_bytes_by_hand() -> None:
    dense = np.ones(100, np.float32)
    assert sparse_bytes(dense) == 400
    few = np.zeros(100_000, np.float32)
    few[[5, 9]] = 1.0
    # 8-bit gaps: both fit one byte each. 4 bytes for the count, 2 x (1 + 4).
    assert sparse_bytes(few) == 4 + 2 * 5
    few[[5, 9]] = 0.0
    few[70_000] = 1.0
    # 16-bit gaps: 70,000 zeros need one bridge of 65,536; 8-bit ones would need 273.
    assert sparse_bytes(few) == 4 + 2 * (2 + 4)
    half = np.zeros(64, np.float16)
    half[::2] = 1.0
    assert sparse_bytes(half) == 64 // 8 + 32 * 2
    assert sparse_bytes(np.zeros(3, np.float32)) == 1


def test_gaps_can_be_read_back() -> None:
    """The bytes of `sparse_bytes` are what a writer of that form really needs."""
    value = np.where(np.random.default_rng(0).random(20_000) < 0.02, 1.5, 0.0).astype(np.float32)
    entries: list[tuple[int, float]] = []
    zeros = 0
    for number in value:
        if number == 0 and zeros < 255:
            zeros += 1
            continue
        entries.append((zeros, float(number)))
        zeros = 0
    while entries and entries[-1][1] == 0.0:
        entries.pop()
    read = np.zeros_like(value)
    at = -1
    for gap, number in entries:
        at += gap + 1
        read[at] = number
    np.testing.assert_array_equal(read, value)
    assert sparse_bytes(value) == 4 + len(entries) * 5


def test_cost_counts_what_is_not_zero() -> None:
    network = example_network(width=24)
    sparse = bound("weight_prune").rewrite(network, Evidence())
    before, after = cost(network), cost(sparse)
    gone = sum(int((sparse.constants[name] == 0).sum()) for name in layer_weights(network))
    assert before.nonzeros == before.parameters == after.parameters
    assert after.nonzeros == before.nonzeros - gone
    assert after.size_bytes == before.size_bytes == before.stored_bytes
    assert after.stored_bytes < 0.6 * before.stored_bytes


def test_lamp_by_hand() -> None:
    scores = lamp(np.array([[1.0, -3.0], [2.0, 0.0]]))
    np.testing.assert_allclose(scores, [[1 / 14, 1.0], [4 / 13, 0.0]])
    np.testing.assert_allclose(lamp(np.array([2.0, 2.0])), [1.0, 0.5])
    assert not lamp(np.zeros((2, 2))).any()


def test_no_layer_is_emptied_for_being_small() -> None:
    network = example_network()
    name = layer_weights(network)[1]
    small = network.with_constants({name: network.constants[name] * np.float32(1e-6)})
    operator_ = weight_prune.LampOperator(0.1)
    kept = [np.count_nonzero(operator_.rewrite(each, Evidence()).constants[name]) for each in (network, small)]
    assert kept[0] == kept[1] > 0
