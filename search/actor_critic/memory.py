"""Replay memory: the transitions of the latest episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Transitions:
    """n transitions: `states` (n, features), `actions` (n, 1), `rewards` (n, 1), `next_states` (n, features) and `ends`
    (n, 1), which is 1 for the last transition of an episode.

    All transitions of an episode have the reward of its end, as in AMC.
    """

    states: Matrix
    actions: Matrix
    rewards: Matrix
    next_states: Matrix
    ends: Matrix


class ReplayMemory:
    """The transitions of the latest `episodes` episodes of `steps` steps each; the oldest are overwritten."""

    def __init__(self, episodes: int, steps: int, features: int) -> None:
        self._shape = (episodes, steps)
        self._states = np.zeros((episodes, steps + 1, features), dtype=np.float32)
        self._actions = np.zeros((episodes, steps), dtype=np.float32)
        self._rewards = np.zeros(episodes, dtype=np.float32)
        self.count = 0

    def add(self, states: NDArray[np.float64], actions: NDArray[np.float64], reward: float) -> None:
        """Store an episode of states (steps, features) and actions (steps,)."""
        slot = self.count % self._shape[0]
        self._states[slot, :-1] = states
        self._actions[slot] = actions
        self._rewards[slot] = reward
        self.count += 1

    @property
    def worst(self) -> float:
        """The lowest reward of the stored episodes."""
        return float(self._rewards[: self.count].min())

    def sample(self, count: int, rng: np.random.Generator) -> Transitions:
        """Return transitions drawn uniformly, with repetition."""
        episode = rng.integers(min(self.count, self._shape[0]), size=count)
        step = rng.integers(self._shape[1], size=count)
        return Transitions(
            self._states[episode, step],
            self._actions[episode, step, None],
            self._rewards[episode, None],
            self._states[episode, step + 1],
            (step[:, None] == self._shape[1] - 1).astype(np.float32),
        )
