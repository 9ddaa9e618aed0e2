"""The best epoch of a training run: kept in the run's checkpoint, whatever comes after it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from compress_graphs import residual

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing
from compress.network import Network
from compress.training.best_epoch import BestEpoch
from compress.training.fit import Step, fit
from compress.training.recipe import Recipe

RECIPE = Recipe(epochs=4, batch=16, lr=0.05, augment="none")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def part() -> Part:
    rng = np.random.default_rng(0)
    return Part(rng.integers(0, 255, (32, 8, 8, 3)).astype(np.uint8), rng.integers(0, 4, 32))


def epochs(checkpoint: bytes | None = None) -> Iterator[Step]:
    """The last step of each epoch of the same training run."""
    steps = fit(residual(norms=True), part(), Preprocessing(), RECIPE, checkpoint=checkpoint)
    return (step for step in steps if step.last_of_epoch)


def same(a: Network, b: Network) -> bool:
    return all(np.array_equal(value, b.constants[name]) for name, value in a.constants.items())


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.5, 0.7, 0.6, 0.4), 2),
        ((0.5, 0.7, 0.7, 0.4), 3),
        ((0.7, 0.6, 0.5, 0.4), 1),
        ((0.1, 0.2, 0.3, 0.4), 4),
        ((math.nan, 0.2, math.nan, 0.1), 2),
    ],
)
@pytest.mark.parametrize("cut", [None, 1, 2, 3])
def test_its_weights_survive_an_interruption_after_any_epoch(
    scores: tuple[float, ...], expected: int, cut: int | None
) -> None:
    networks = [step.network() for step in epochs()]
    best, saved = BestEpoch(), b""
    for step in epochs():
        best = best.after(step.epoch, scores[step.epoch], step.network())
        saved = step.checkpoint(best.arrays)
        if step.epoch + 1 == cut:
            break
    if cut is not None:
        best = BestEpoch.of(saved)
        for step in epochs(saved):
            best = best.after(step.epoch, scores[step.epoch], step.network())
            saved = step.checkpoint(best.arrays)
    found = BestEpoch.of(saved)
    assert (best.epoch, found.epoch, found.is_last) == (expected, expected, expected == 4)
    np.testing.assert_array_equal(found.scores, scores)
    assert same(found.network(residual(norms=True)), networks[expected - 1])


def test_a_checkpoint_of_an_earlier_version_has_no_scores() -> None:
    first = next(epochs())
    assert BestEpoch.of(first.checkpoint()).is_last
    rest = list(epochs(first.checkpoint()))
    best = BestEpoch.of(first.checkpoint())
    for step, score in zip(rest, (0.6, 0.5, 0.4), strict=True):
        best = best.after(step.epoch, score, step.network())
    assert (best.epoch, best.is_last) == (2, False)
    assert math.isnan(best.scores[0])


def test_without_any_score_the_last_epoch_counts() -> None:
    assert BestEpoch.of(None).is_last
    nothing = BestEpoch().after(0, math.nan, residual())
    assert (nothing.epoch, nothing.is_last) == (0, True)


def test_only_weights_that_are_not_the_last_ones_take_room() -> None:
    first, second, *_ = epochs()
    one = BestEpoch().after(0, 0.5, first.network())
    assert set(one.arrays) == {"scores"}
    assert set(one.after(1, 0.6, second.network()).arrays) == {"scores"}
    assert len(one.after(1, 0.4, second.network()).arrays) > 1
