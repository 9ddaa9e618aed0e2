"""Learner: it finds the action that pays, and leaves the rest of the process alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search.actor_critic.learner import Learner, Rates

RATES = Rates(hidden=32, actor_lr=1e-3, critic_lr=3e-3, tau=0.05, gamma=0.0, batch=64, replay=50)
STATES = np.array([[0.0, 1.0], [1.0, 0.0]])
BEST = (0.8, 0.3)
STEPS = 10


def taught(episodes: int, seed: int = 0) -> Learner:
    """Return a learner of two kinds of episodes in turn; each has one state, and another best action."""
    learner = Learner(2, STEPS, 0.5, RATES, seed)
    rng = np.random.default_rng(1)
    for episode in range(episodes):
        state, best = STATES[episode % 2], BEST[episode % 2]
        action = min(max(learner.act(state) + float(rng.normal(0.0, 0.3)), 0.0), 1.0)
        learner.learn(np.tile(state, (STEPS, 1)), np.full(STEPS, action), 0.6 - (action - best) ** 2)
    return learner


def acts(learner: Learner) -> list[float]:
    return [learner.act(state) for state in STATES]


@pytest.mark.parametrize("start", [0.05, 0.4, 0.95])
def test_at_first_every_action_is_near_the_start(start: float) -> None:
    learner = Learner(2, 2, start, RATES, 0)
    np.testing.assert_allclose(acts(learner), start, atol=0.02)


def test_it_learns_the_action_that_pays_in_each_state() -> None:
    np.testing.assert_allclose(acts(taught(60)), BEST, atol=0.1)


def test_the_same_episodes_teach_the_same() -> None:
    first, again, other = (acts(taught(6, seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_failure_is_as_bad_as_the_worst_so_far() -> None:
    failed, bad = (Learner(2, 2, 0.5, RATES, 0) for _ in range(2))
    for learner, reward in ((failed, None), (bad, 0.1)):
        learner.learn(STATES, np.array([0.2, 0.4]), 0.7)
        learner.learn(STATES, np.array([0.5, 0.5]), 0.1)
        learner.learn(STATES, np.array([0.9, 0.9]), reward)
    assert acts(failed) == acts(bad)


def test_a_failure_before_any_result_teaches_nothing() -> None:
    learner, untaught = (Learner(2, 2, 0.5, RATES, 0) for _ in range(2))
    learner.learn(STATES, np.array(BEST), None)
    assert acts(learner) == acts(untaught)


def test_global_randomness_and_threads_are_left_alone() -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    taught(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
