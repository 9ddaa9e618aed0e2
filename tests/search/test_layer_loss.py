"""Layer losses (F1): what statistics say of each knob alone, summed for thousands of candidates at once."""

from __future__ import annotations

import numpy as np
import pytest

from search.layer_loss import layer_losses
from search.space import Choice, Int, Space
from search.synthetic.replay import make_replay

KNOB = Choice("a", (1, 3, 4), ordered=True)
SPACE = Space((KNOB, Int("r", 1, 3, role="rank"), Choice("p", ("fp32", "int8"), ordered=False)))
GRAM = np.array([[4.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, -0.5], [0.0, 0.0, -0.5, 1.0]])


def test_the_error_after_the_refit_goes_before_all_others() -> None:
    errors = np.array([0.5, 0.1, 0.0])
    found = layer_losses(SPACE, {"ls_error": {"a": errors, "r": errors}, "gram": {"a": GRAM}})
    assert found.keys() == {"a", "r"}
    assert (found["a"] == errors).all()


def test_gram_is_the_quadratic_form_of_the_units_that_go() -> None:
    ranks = np.array([4.0, 3.0, 2.0, 1.0])
    found = layer_losses(SPACE, {"gram": {"a": GRAM}, "importance": {"a": ranks}, "fisher": {"a": ranks}})

    def lost(kept: int) -> float:
        gone = (np.arange(4) >= kept).astype(float)
        return float(gone @ GRAM @ gone)

    assert found["a"] == pytest.approx([lost(1), lost(3), 0.0])


def test_fisher_is_the_share_that_goes_with_the_least_scores() -> None:
    found = layer_losses(SPACE, {"fisher": {"a": np.array([1.0, 4.0, 2.0, 3.0])}})
    assert found["a"] == pytest.approx([0.6, 0.1, 0.0])


def test_units_are_those_of_a_width_alone() -> None:
    assert layer_losses(SPACE, {"fisher": {"r": np.ones(3), "p": np.ones(2)}}) == {}


def test_thousands_are_summed_and_rank_as_the_truth_does() -> None:
    replay = make_replay(5, knobs=6, precision=False)
    rng = np.random.default_rng(0)
    batch = [replay.problem.space.sample(rng) for _ in range(2000)]
    proxy = replay.problem.proxy(batch)
    assert proxy.shape == (2000,)
    assert replay.problem.proxy([replay.problem.space.whole]) == pytest.approx([0.0])
    truth = replay.network.accuracy(replay.problem.space.levels_of(batch))
    ranks = [np.argsort(np.argsort(column)) for column in (-proxy, truth)]
    assert np.corrcoef(ranks)[0, 1] > 0.7


def test_nothing_known_is_no_loss_and_says_so() -> None:
    problem = make_replay(5, statistics=False).problem
    assert problem.layer_losses == {}
    assert problem.proxy([problem.space.whole]).tolist() == [0.0]
