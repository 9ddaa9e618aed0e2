"""Attention transfer: where maps are compared, what they are, and that training brings them together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from compress_graphs import Graph, residual

from compress import builtin
from compress.builtin.digits import digits
from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.graph.fold import fold_norms
from compress.graph.groups import prunable_blocks
from compress.graph.module import TorchNetwork
from compress.importing.normalise import load_network
from compress.network import Network
from compress.scheme import Scheme
from compress.training.attention import attended, attention, taps, transfer
from compress.training.fit import fit
from compress.training.recipe import Recipe

PIXELS = Preprocessing(mean=(0.5,), std=(0.25,))
NAMES = ("digits_cnn", "lenet5", "resnet20", "vgg16")  # the other built-in networks are deeper ResNets
RECIPE = Recipe(epochs=1, batch=64, lr=0.02, augment="none", alpha=0.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def networks() -> Mapping[str, Network]:
    return {name: load_network(builtin.export_builtin(name, seed=0)) for name in NAMES}


def _halved(network: Network) -> Network:
    """The network with half of each group of channels."""
    scheme = Scheme.of([("filter_prune", {"importance": "l2", "refit": False})])
    images = np.random.default_rng(0).normal(size=(2, *network.input_shape)).astype(np.float32)
    values = {block.name: max(block.minimum, block.width // 2) for block in prunable_blocks(network)}
    return scheme.bind(values).rewrite(network, scheme.gather(network, images))


def test_the_taps_are_the_last_tensors_of_each_resolution() -> None:
    assert taps(residual()) == {(8, 8): "a_relu", (4, 4): "b_relu"}
    assert taps(residual(norms=True)) == {(8, 8): "a_relu", (4, 4): "b_relu"}


def test_an_unpadded_layer_is_no_step_down_and_a_flattening_is() -> None:
    graph = Graph((3, 8, 8))
    x = graph.relu(graph.conv("image", "thin", (3, 4), pads=[0, 0, 0, 0]), "thin_relu")
    x = graph.op("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = graph.relu(graph.conv(x, "late", (4, 4)), "late_relu")
    graph.gemm(graph.op("Flatten", [x], "flat"), "logits", (36, 4))
    assert taps(graph.network()) == {(6, 6): "thin_relu", (3, 3): "late_relu"}


def test_the_image_itself_is_no_tap() -> None:
    graph = Graph((3, 8, 8))
    x = graph.conv("image", "stem", (3, 4), strides=[2, 2])
    graph.gemm(graph.pool_flat(x, "flat"), "logits", (4, 4))
    assert taps(graph.network()) == {(4, 4): x}


@pytest.mark.parametrize("name", NAMES)
def test_every_built_in_network_has_taps_that_its_student_shares(networks: Mapping[str, Network], name: str) -> None:
    teacher = networks[name]
    student = _halved(teacher)
    pairs = attended(student, fold_norms(teacher))
    assert len(pairs) >= 2
    for own, wanted in pairs:
        assert student.shape(own)[2:] == teacher.shape(wanted)[2:]
    assert any(student.shape(own)[1] < teacher.shape(wanted)[1] for own, wanted in pairs)


def test_a_map_has_length_one_and_no_channels() -> None:
    activation = torch.randn(5, 7, 3, 4)
    found = attention(activation)
    assert found.shape == (5, 12)
    assert found.norm(dim=1) == pytest.approx(torch.ones(5))
    expected = (activation[2] ** 2).mean(0).flatten()
    assert found[2] == pytest.approx(expected / expected.norm())
    assert attention(3.0 * activation) == pytest.approx(found)


def test_a_network_with_the_teachers_attention_loses_nothing() -> None:
    shown = {"a": torch.randn(5, 7, 3, 4)}
    made = {"b": torch.cat([shown["a"], shown["a"]], 1)}
    assert float(transfer([("b", "a")], made, shown)) == pytest.approx(0.0, abs=1e-12)
    assert float(transfer([("b", "a")], {"b": torch.randn(5, 2, 3, 4)}, shown)) > 1e-4
    assert float(transfer([], made, shown)) == 0.0


def _difference(student: Network, teacher: Network, part: Part) -> float:
    """Return the difference of the attention maps, with the student as it is in training."""
    images = torch.from_numpy(preprocess(part.images[:64], PIXELS))
    pairs = attended(student, teacher)
    with torch.no_grad():
        made = TorchNetwork(student).train().run(images, [own for own, _ in pairs])
        shown = TorchNetwork(teacher).eval().run(images, [wanted for _, wanted in pairs])
        return float(transfer(pairs, made, shown))


def test_attention_of_a_narrower_student_comes_closer_on_digits(networks: Mapping[str, Network]) -> None:
    part = Part(digits().train.images[:320], digits().train.labels[:320])
    *_, last = fit(networks["digits_cnn"], part, PIXELS, replace(RECIPE, epochs=2, lr=0.05, batch=16))
    teacher = last.network()
    student = _halved(networks["digits_cnn"])
    trained = {}
    for weight in (0.0, 1000.0):
        *_, last = fit(student, part, PIXELS, replace(RECIPE, attention=weight, batch=16), teacher)
        trained[weight] = _difference(last.network(), teacher, part)
    assert trained[1000.0] < 0.7 * trained[0.0]
    assert trained[1000.0] < _difference(student, teacher, part)


def test_the_loss_that_a_step_tells_is_the_tasks_alone() -> None:
    network, teacher, part = residual(norms=True), residual(seed=5), _noise(64)
    plain, taught = (
        next(fit(network, part, PIXELS, replace(RECIPE, attention=weight), teacher)) for weight in (0.0, 1e4)
    )
    assert taught.loss == plain.loss
    weights = [step.network().constants["a1.weight"] for step in (plain, taught)]
    assert np.abs(weights[0] - weights[1]).max() > 1e-4


def test_without_a_teacher_or_a_weight_nothing_changes() -> None:
    network, part = residual(norms=True), _noise(64)
    alone = [next(fit(network, part, PIXELS, replace(RECIPE, attention=weight))).network() for weight in (0.0, 1e4)]
    for name, value in alone[0].constants.items():
        np.testing.assert_array_equal(value, alone[1].constants[name])


def test_an_interrupted_training_ends_with_the_same_weights() -> None:
    network, teacher, part = residual(norms=True), residual(seed=5), _noise(128)
    recipe = replace(RECIPE, epochs=2, attention=1000.0)
    *_, whole = fit(network, part, PIXELS, recipe, teacher)
    first = list(itertools.islice(fit(network, part, PIXELS, recipe, teacher), 2))
    *_, rest = fit(network, part, PIXELS, recipe, teacher, first[-1].checkpoint())
    for name, value in whole.network().constants.items():
        np.testing.assert_array_equal(value, rest.network().constants[name])


def test_a_recipe_without_attention_is_written_as_before() -> None:
    """Checkpoints of trainings that began before there was attention transfer can be resumed."""
    assert "attention" not in RECIPE.to_json()
    assert '"attention": 5.0' in replace(RECIPE, attention=5.0).to_json()


def _noise(count: int) -> Part:
    rng = np.random.default_rng(0)
    return Part(rng.integers(0, 255, (count, 8, 8, 3)).astype(np.uint8), rng.integers(0, 4, count))
