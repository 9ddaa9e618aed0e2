"""States: what the actor and the critic see before each step, as numbers in [0, 1].

The state is that of AMC (He et al., arXiv 1802.03494): t, n, c, h, w, stride, k, FLOPs[t], reduced, rest, a_{t-1}; but
FLOPs[t], reduced and rest are shares of the *latency* (of the sums of tables that are limited). Three features are
added: what the knob's statistics say that a cut costs, the mean action of the options decided first, and how much of
what later steps can free must be freed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.actor_critic.steps import Step
from search.problem import Problem
from search.terms import Terms

Matrix = NDArray[np.float64]

_FACTS = ("channels", "input_channels", "height", "width", "stride", "kernel")
WIDTH = 4 + len(_FACTS) + 4
"""Number of features of a state."""


class States:
    """The states of an episode of these steps."""

    def __init__(self, problem: Problem, steps: Sequence[Step]) -> None:
        space = problem.space
        self._places = np.array([_place(steps, knob.name) for knob in space.levelled], dtype=np.int64)
        self._whole = space.levels(space.whole)
        self._least = space.levels({knob.name: knob.least for knob in space.knobs})
        self._terms, self._limits = _costs(problem)
        self._full = np.array([_full(terms, self._whole) for terms in self._terms])
        self._options = np.array([not step.knob.ordered for step in steps])
        self._static = self._facts(problem, steps)

    def before(self, ts: NDArray[np.int64], levels: NDArray[np.int64], actions: Matrix) -> Matrix:
        """Return the states (n, WIDTH) before the steps `ts`, given the levels of the levelled knobs (those of later
        steps do not matter) and the actions (steps,) so far.
        """
        decided = self._places[None] < ts[:, None]
        ends = [np.where(decided, levels, rest) for rest in (self._whole, self._least)]
        most, least = np.split(self._shares(np.concatenate(ends)), 2)
        reduced, rest = 1.0 - most, most - least
        over = np.maximum(most - self._limits, 0.0)
        need = over / np.maximum(np.maximum(rest, over), np.finfo(float).tiny)
        before = np.append(1.0, actions)[ts]
        done = self._options[None] & (np.arange(len(actions))[None] < ts[:, None])
        option = np.where(done.any(axis=1), (actions * done).sum(axis=1) / np.maximum(done.sum(axis=1), 1), 1.0)
        moving = [reduced.mean(axis=1), rest.mean(axis=1), need.max(axis=1), before, option]
        return np.asarray(np.clip(np.concatenate([self._static[ts], np.stack(moving, axis=1)], axis=1), 0.0, 1.0))

    def _shares(self, levels: NDArray[np.int64]) -> Matrix:
        """Return each cost (n, costs) as a share of the uncut network's; 1 if no cost is a sum of tables."""
        if not self._terms:
            return np.ones((len(levels), 1))
        return np.asarray(np.stack([terms.latency_ms(levels) for terms in self._terms], axis=1) / self._full)

    def _facts(self, problem: Problem, steps: Sequence[Step]) -> Matrix:
        """Return the features (steps, static) that do not change during an episode, scaled over the steps."""
        alone = np.where(np.eye(len(self._whole), dtype=bool), self._least, self._whole)
        freed = dict(zip((k.name for k in problem.space.levelled), 1.0 - self._shares(alone).mean(axis=1), strict=True))
        losses = problem.layer_losses
        columns = [
            np.arange(len(steps), dtype=float),
            *(np.array([step.knob.features.get(fact, 0.0) for step in steps]) for fact in _FACTS),
            np.array([freed.get(step.knob.name, 0.0) for step in steps]),
            np.array([losses[step.knob.name].mean() if step.knob.name in losses else 0.0 for step in steps]),
        ]
        return np.stack([_scaled(column) for column in columns], axis=1)


def _place(steps: Sequence[Step], name: str) -> int:
    return next(t for t, step in enumerate(steps) if step.knob.name == name)


def _scaled(column: Matrix) -> Matrix:
    spread = float(np.ptp(column))
    return (column - column.min()) / spread if spread else np.zeros_like(column)


def _costs(problem: Problem) -> tuple[list[Terms], Matrix]:
    """Return the limited sums of tables with their limits as shares; without such limits, all sums, unlimited."""
    limited = [c for c in problem.constraints if c.sense == "max" and c.metric in problem.terms]
    if not limited:
        return list(problem.terms.values()), np.full(max(len(problem.terms), 1), np.inf)
    terms = [problem.terms[constraint.metric] for constraint in limited]
    whole = problem.space.levels(problem.space.whole)
    return terms, np.array([c.bound / _full(t, whole) for c, t in zip(limited, terms, strict=True)])


def _full(terms: Terms, whole: NDArray[np.int64]) -> float:
    """Return the cost of the uncut network, without its sign, because shares of it are taken."""
    return abs(float(terms.latency_ms(whole[None])[0])) or 1.0
