"""Replay memory: what it gives back of the episodes that it was given."""

from __future__ import annotations

import numpy as np

from search.actor_critic.memory import ReplayMemory

STEPS = 3


def remembered(episodes: int, capacity: int) -> ReplayMemory:
    """Return a memory of episodes whose every number says which episode and step it belongs to."""
    memory = ReplayMemory(capacity, STEPS, 2)
    for episode in range(episodes):
        step = 10.0 * episode + np.arange(STEPS)
        memory.add(np.stack([step, -step], axis=1), step, float(episode))
    return memory


def test_transitions_belong_together() -> None:
    batch = remembered(4, 4).sample(500, np.random.default_rng(0))
    steps = batch.actions[:, 0] % 10
    ends = batch.ends[:, 0] == 1.0
    np.testing.assert_array_equal(batch.states, np.concatenate([batch.actions, -batch.actions], axis=1))
    np.testing.assert_array_equal(batch.rewards[:, 0], batch.actions[:, 0] // 10)
    np.testing.assert_array_equal(ends, steps == STEPS - 1)
    np.testing.assert_array_equal(batch.next_states[~ends, 0], batch.states[~ends, 0] + 1.0)


def test_every_stored_step_is_drawn_and_nothing_else() -> None:
    batch = remembered(2, 100).sample(500, np.random.default_rng(0))
    assert set(batch.actions[:, 0].tolist()) == {0.0, 1.0, 2.0, 10.0, 11.0, 12.0}


def test_the_oldest_episodes_are_forgotten() -> None:
    memory = remembered(5, 2)
    assert set(memory.sample(500, np.random.default_rng(0)).rewards[:, 0].tolist()) == {3.0, 4.0}
    assert memory.worst == 3.0
    assert memory.count == 5
