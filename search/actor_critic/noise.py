"""Exploration noise: a normal distribution around the actor's action, truncated to [0, 1], and how fast it decays."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_END = 0.05  # sigma at the end of the budget, at most: with fewer episodes than the paper's, noise must decay faster


@dataclass(frozen=True)
class Schedule:
    """The standard deviation of the noise: `sigma` during the warm-up, then less from episode to episode.

    As in the paper, each episode multiplies it by `decay`, or by less, so that it is small at the end of `episodes`.
    """

    sigma: float
    decay: float
    warm_up: int
    episodes: int

    def at(self, episode: int) -> float:
        """Return the standard deviation of an episode, from 0. The first episode has no noise, so that it shows what
        the actor begins with.
        """
        if episode == 0:
            return 0.0
        return self.sigma * self._factor ** max(episode - self.warm_up, 0)

    @property
    def _factor(self) -> float:
        if self.sigma <= _END:
            return self.decay
        fast: float = (_END / self.sigma) ** (1.0 / max(self.episodes - self.warm_up, 1))
        return min(self.decay, fast)


def truncated_normal(mean: float, sigma: float, rng: np.random.Generator) -> float:
    """Draw from the normal distribution truncated to [0, 1]; with a sigma of 0, return the mean."""
    share = float(rng.uniform())
    if sigma == 0.0:
        return mean
    normal = NormalDist(mean, sigma)
    low, high = normal.cdf(0.0), normal.cdf(1.0)
    return min(max(normal.inv_cdf(low + share * (high - low)), 0.0), 1.0)
