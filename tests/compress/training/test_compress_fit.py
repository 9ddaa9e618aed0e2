"""Training: it learns, it resumes to the same weights, it says when it diverges."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compress_graphs import Graph, images, residual, walled

from compress.data.augment import augmented
from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.errors import InvalidInput, TrainingDiverged
from compress.graph.edit import edited
from compress.graph.groups import prunable_blocks
from compress.graph.module import TorchNetwork
from compress.network import Network, Node
from compress.pruning.importance import score
from compress.pruning.reach import untrained
from compress.task import Targets
from compress.tasks.classification import TASK, Classification
from compress.training import fit as training
from compress.training.checkpoint import Checkpoint
from compress.training.fit import Step, fit
from compress.training.logits import logits_name
from compress.training.recipe import Recipe

PIXELS = Preprocessing(mean=(0.5,), std=(0.25,))
RECIPE = Recipe(epochs=2, batch=16, lr=0.05, augment="crop_flip", seed=3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stripes(count: int, seed: int = 0) -> Part:
    """Four classes of 3 x 8 x 8 images: stripes across or along, in red or in blue, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    wave = np.arange(8) % 2 * 120
    images = rng.integers(0, 100, (count, 8, 8, 3))
    for image, label in zip(images, labels, strict=True):
        image[:, :, 2 * (label // 2)] += wave[:, None] if label % 2 else wave[None, :]
    return Part(images.astype(np.uint8), labels.astype(np.int64))


def run(network: Network, part: Part, recipe: Recipe, **settings: Any) -> list[Step]:
    return list(fit(network, part, PIXELS, recipe, **settings))


def accuracy(network: Network, part: Part) -> float:
    with torch.no_grad():
        logits = TorchNetwork(network).eval()(torch.from_numpy(preprocess(part.images, PIXELS)))
    return float((logits.argmax(1).numpy() == part.labels).mean())


class Counted(Classification):
    """Classification that counts how often its loss is computed."""

    calls = 0

    def loss(self, *arguments: Any, **named: Any) -> torch.Tensor:
        self.calls += 1
        return super().loss(*arguments, **named)


def assert_same(a: Network, b: Network) -> None:
    for name, value in a.constants.items():
        np.testing.assert_array_equal(value, b.constants[name], err_msg=name)


def test_a_network_learns_and_stays_as_it_was() -> None:
    network, part = residual(norms=True), stripes(256)
    before = network.digest
    steps = run(network, part, replace(RECIPE, epochs=4, augment="none"))
    assert accuracy(steps[-1].network(), stripes(128, seed=9)) > 0.9 > accuracy(network, part)
    assert network.digest == before


def test_steps_count_and_the_rate_rises_then_falls_to_nothing() -> None:
    steps = run(residual(norms=True), stripes(70), replace(RECIPE, epochs=3, warm_up=0.25))
    assert [step.step for step in steps] == list(range(12))
    assert {step.steps for step in steps} == {12}
    assert [step.epoch for step in steps] == [0] * 4 + [1] * 4 + [2] * 4
    assert [step.step for step in steps if step.last_of_epoch] == [3, 7, 11]
    rates = [step.lr for step in steps]
    assert rates[:4] == sorted(rates[:4])
    assert max(rates) == pytest.approx(RECIPE.lr)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] < 0.05 * RECIPE.lr


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_an_interrupted_run_ends_with_the_same_weights(stop: int) -> None:
    network, part, teacher = residual(norms=True), stripes(64), residual(seed=5)
    whole = run(network, part, replace(RECIPE, epochs=3), teacher=teacher)[-1].network()
    first = list(itertools.islice(fit(network, part, PIXELS, replace(RECIPE, epochs=3), teacher), stop))
    saved = first[-1].checkpoint()
    rest = run(network, part, replace(RECIPE, epochs=3), teacher=teacher, checkpoint=saved)
    assert rest[0].step == stop
    assert_same(rest[-1].network(), whole)


def test_a_checkpoint_of_the_last_step_leaves_nothing_to_do() -> None:
    network, part = residual(norms=True), stripes(64)
    saved = run(network, part, RECIPE)[-1].checkpoint()
    assert run(network, part, RECIPE, checkpoint=saved) == []


def test_a_checkpoint_of_another_training_is_refused() -> None:
    network, part = residual(norms=True), stripes(64)
    saved = next(fit(network, part, PIXELS, RECIPE)).checkpoint()
    for other in (replace(RECIPE, lr=0.01), replace(RECIPE, seed=4)):
        with pytest.raises(InvalidInput, match="another network, recipe or data"):
            next(fit(network, part, PIXELS, other, checkpoint=saved))
    with pytest.raises(InvalidInput, match="another network"):
        next(fit(residual(norms=True, width=4), part, PIXELS, RECIPE, checkpoint=saved))


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x80\x04\x95", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a readable checkpoint"):
        Checkpoint.from_bytes(data)


def test_a_checkpoint_keeps_scalars_and_running_statistics() -> None:
    saved = Checkpoint(7, "f", {"a": np.float32(3) * np.ones(()), "b": np.zeros((2, 3))}, {"b": np.ones((2, 3))})
    back = Checkpoint.from_bytes(saved.to_bytes())
    assert (back.step, back.fingerprint) == (7, "f")
    assert back.weights["a"].shape == ()
    assert back.momentum.keys() == {"b"}


def test_another_seed_draws_other_batches() -> None:
    network, part = residual(norms=True), stripes(64)
    losses = {seed: [s.loss for s in run(network, part, replace(RECIPE, seed=seed))] for seed in (3, 4)}
    assert losses[3] != losses[4]
    assert losses[3] == [s.loss for s in run(network, part, RECIPE)]


def test_every_image_is_seen_once_an_epoch() -> None:
    """Without a rest, one epoch's batches are a permutation: with a rate of zero the mean loss is the set's."""
    network, part = residual(norms=True), stripes(64)
    still = replace(RECIPE, epochs=1, lr=1e-8, augment="none", batch=64)
    (step,) = run(network, part, still)
    module = TorchNetwork(network).train()
    expected = F.cross_entropy(module(torch.from_numpy(preprocess(part.images, PIXELS))), torch.from_numpy(part.labels))
    assert step.loss == pytest.approx(float(expected.detach()), rel=1e-5)


def test_distillation_is_a_mean_over_the_batch_with_the_square_of_the_temperature() -> None:
    network, teacher, part = residual(norms=True), residual(seed=5), stripes(64)
    recipe = replace(RECIPE, epochs=1, batch=64, augment="none", alpha=0.75, temperature=3.0)
    (step,) = run(network, part, recipe, teacher=teacher)
    pixels = torch.from_numpy(preprocess(part.images, PIXELS))
    with torch.no_grad():
        logits, wanted = TorchNetwork(network).train()(pixels), TorchNetwork(teacher).eval()(pixels)
    soft = F.softmax(wanted / 3.0, 1)
    divergence = (soft * (soft.log() - F.log_softmax(logits / 3.0, 1))).sum(1).mean()
    expected = 0.25 * F.cross_entropy(logits, torch.from_numpy(part.labels)) + 0.75 * 9.0 * divergence
    assert step.loss == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("taught", [False, True])
def test_a_step_says_what_a_network_that_says_nothing_would_have_lost(taught: bool) -> None:
    network, part, recipe = residual(), stripes(16), replace(RECIPE, epochs=1, augment="none")
    head = next(node for node in network.nodes if node.outputs[0] == network.output_name).inputs[1:]
    silent = network.with_constants({name: np.zeros_like(network.constants[name]) for name in head})
    (step,) = run(silent, part, recipe, teacher=network if taught else None)
    assert step.loss == pytest.approx(step.blank(), rel=1e-5)
    (step,) = run(network, part, recipe, teacher=network if taught else None)
    assert step.loss != pytest.approx(step.blank(), rel=1e-3)


def test_a_step_tells_the_loss_of_its_task_alone_and_a_silent_network_costs_nothing_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What other outputs add to the loss is no knowledge of the task, and has no part in the silent network's loss."""
    monkeypatch.setattr(training, "drift", lambda *_: torch.full((), 1e6))
    counted = Counted()
    (step,) = run(residual(), stripes(16), replace(RECIPE, epochs=1), teacher=residual(seed=5), task=counted)
    assert (step.loss < 1e3, counted.calls) == (True, 1)
    assert (step.blank() < 1e3, counted.calls) == (True, 2)


def test_weights_alone_decay() -> None:
    """Where no gradient comes (a dead channel), decay is all that moves a weight; biases and norms stay."""
    network, part = residual(norms=True), stripes(64)
    dead = network.constants["a2.weight"].copy()
    dead[:, 3] = 0.0
    network = network.with_constants({"a2.weight": dead})
    recipe = replace(RECIPE, epochs=1, batch=64, weight_decay=0.5, warm_up=0.0, momentum=0.0)
    (step,) = run(network, part, recipe)
    after = step.network().constants
    np.testing.assert_allclose(
        after["a1.weight"][3], network.constants["a1.weight"][3] * (1 - RECIPE.lr * 0.5), rtol=1e-4
    )
    for name in ("a1_norm.gamma", "a1_norm.beta"):
        assert after[name][3] == network.constants[name][3]


def test_a_loss_that_is_not_a_number_is_named() -> None:
    network, part = residual(norms=True), stripes(64)
    broken = network.constants["logits.bias"].copy()
    broken[0] = np.nan
    with pytest.raises(TrainingDiverged, match="epoch 0, step 0") as caught:
        run(network.with_constants({"logits.bias": broken}), part, RECIPE)
    assert np.isnan(caught.value.loss)


def test_no_epochs_and_too_few_images() -> None:
    assert run(residual(norms=True), stripes(64), replace(RECIPE, epochs=0)) == []
    with pytest.raises(InvalidInput, match="two images"):
        run(residual(norms=True), stripes(1), RECIPE)


def test_a_crop_shifts_whole_images_and_zeros_come_in() -> None:
    images = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(50, 0)
    result = augmented(images, "crop", np.random.default_rng(0))
    assert result.dtype == np.uint8
    assert result.shape == images.shape
    padded = np.pad(images[0, ..., 0], 1)
    shifts = {(r, c): padded[r : r + 8, c : c + 8].tobytes() for r in range(3) for c in range(3)}
    seen = {np.ascontiguousarray(image[..., 0]).tobytes() for image in result}
    assert seen <= set(shifts.values())
    assert len(seen) == 9


def test_a_flip_mirrors_half_and_none_leaves_all() -> None:
    images = np.random.default_rng(1).random((400, 4, 4, 2)).astype(np.float32)
    result = augmented(images, "crop_flip", np.random.default_rng(0))
    mirrored = [np.array_equal(image, original[:, ::-1]) for image, original in zip(result, images, strict=True)]
    assert 0.4 < np.mean(mirrored) < 0.6  # sides under 8 are not shifted
    assert augmented(images, "none", np.random.default_rng(0)) is images


def test_what_lies_before_a_node_without_gradients_stays_and_the_rest_trains() -> None:
    network = walled()
    steps = run(network, stripes(64), RECIPE)
    after = steps[-1].network().constants
    for name in ("stem.weight", "early.weight"):
        np.testing.assert_array_equal(after[name], network.constants[name])
    assert (after["late.weight"] != network.constants["late.weight"]).any()
    (said,) = untrained(network)
    assert "stem" in said
    assert "early" in said
    assert "late" not in said
    assert "wall_node" in said
    assert untrained(residual()) == ()


@pytest.mark.parametrize("weights", [False, True])
def test_a_network_that_cannot_be_trained_has_no_steps(weights: bool) -> None:
    graph = Graph((3, 8, 8))
    x = graph.conv("image", "stem", (3, 4)) if weights else "image"
    graph.op("Sin", [graph.pool_flat(x, "flat")], "logits")
    network = graph.network()
    assert run(network, stripes(64), RECIPE) == []
    assert untrained(network)


def ending(network: Network, *nodes: Node) -> Network:
    """The network with more nodes behind its logits, the last of which makes the output."""
    made = replace(network, outputs={nodes[-1].outputs[0]: network.outputs["logits"]})
    return edited(made, [*made.nodes, *nodes], made.constants)


ENDINGS = {
    "Softmax": (Node("Softmax", "last", ("logits",), ("scores",), {"axis": 1}),),
    "LogSoftmax": (Node("LogSoftmax", "last", ("logits",), ("scores",), {"axis": -1}),),
    "Sigmoid": (Node("Sigmoid", "last", ("logits",), ("scores",)),),
    "flattened": (
        Node("Softmax", "last", ("logits",), ("probabilities",), {"axis": 1}),
        Node("Flatten", "flat", ("probabilities",), ("scores",), {"axis": 1}),
    ),
}


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("taught", [False, True])
def test_a_loss_takes_the_logits_before_a_last_activation(end: str, taught: bool) -> None:
    plain = residual()
    ended = ending(plain, *ENDINGS[end])
    recipe = replace(RECIPE, alpha=0.5 if taught else 0.0)
    last = [run(n, stripes(64), recipe, teacher=n if taught else None)[-1] for n in (plain, ended)]
    assert last[0].loss == last[1].loss
    assert_same(last[0].network(), last[1].network())
    assert last[1].network().nodes[-1].outputs == ("scores",)
    assert logits_name(ended) == "logits"


def test_fisher_takes_the_logits_too() -> None:
    plain = residual()
    ended = ending(plain, *ENDINGS["Softmax"])
    batch, truth = images(8), Targets(TASK, np.arange(8) % 4)
    found = [score(network, prunable_blocks(network), "fisher", batch, truth) for network in (plain, ended)]
    for name, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][name])


def test_a_softmax_that_is_not_over_the_classes_stays_in_the_loss() -> None:
    graph = Graph((4, 3, 3))
    x = graph.op("Softmax", [graph.conv("image", "stem", (4, 4))], "mixed", axis=2)
    graph.op("Flatten", [x], "logits")
    assert logits_name(graph.network()) == "logits"
