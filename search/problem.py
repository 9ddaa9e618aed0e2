"""Problem: the space, objectives, constraints, and everything known before any evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.errors import InvalidInput
from search.layer_loss import layer_losses
from search.metric import Goal
from search.space import Space, Values
from search.terms import Term, Terms

__all__ = ["Constraint", "Estimate", "Goal", "Objective", "Problem", "Sense", "Term", "Terms"]

ACCURACY = "accuracy"
"""The deciding metric of a problem that names none."""
Sense: TypeAlias = Literal["max", "min"]
Estimate: TypeAlias = Callable[[Sequence[Values]], Mapping[str, NDArray[np.float64]]]
"""Function that takes n values and returns metric key -> (n,) estimates. It is cheap, vectorised and deterministic, and
does not estimate scores.
"""

Statistics: TypeAlias = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""Results that are computed once for the network, as name -> knob -> array. Methods may add names. The names so far:

`sensitivity`   (levels,) the objective's metric if only this knob is turned, to each level
`ls_error`      (levels,) relative least-squares reconstruction error at each level, 0 = no error
`importance`    (width,)  score of each unit, any scale; a width knob keeps the highest
`fisher`        (width,)  Fisher score of each unit, whatever `importance` is; missing if no gradient reaches them
`gram`          (width, width) G; with p = 1 for the removed units, p'Gp is the share of the variance of their
                readers' outputs that is lost without a refit
"""


@dataclass(frozen=True)
class Objective:
    """A metric, and whether more or less of it is better."""

    metric: str
    goal: Goal

    def __post_init__(self) -> None:
        if self.goal not in ("min", "max"):
            raise InvalidInput("objective.goal", self.goal, "must be 'min' or 'max'")

    def utility(self, metrics: Mapping[str, float]) -> float:
        """Return the metric, negated if less is better. Raises: InvalidInput if the metric is missing."""
        if self.metric not in metrics:
            raise InvalidInput("metrics", sorted(metrics), f"{self.metric} is missing")
        return metrics[self.metric] if self.goal == "max" else -metrics[self.metric]


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric: the metric must be at most (sense max) or at least (sense min) `bound`."""

    metric: str
    bound: float
    sense: Sense

    def __post_init__(self) -> None:
        if self.sense not in ("max", "min"):
            raise InvalidInput("constraint.sense", self.sense, "must be 'max' or 'min'")
        if not math.isfinite(self.bound):
            raise InvalidInput(self.metric, self.bound, "a bound must be a finite number")

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Return by how much the bound is violated, relative to |bound|; 0 if it is met. Raises InvalidInput if the
        metric is missing.
        """
        if self.metric not in metrics:
            raise InvalidInput("metrics", sorted(metrics), f"{self.metric} is missing")
        return float(self.violations(np.array([metrics[self.metric]]))[0])

    def violations(self, column: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the violations (n,) for n values of the metric."""
        over = column - self.bound if self.sense == "max" else self.bound - column
        return np.maximum(over, 0.0) / (abs(self.bound) or 1.0)


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that a strategy may know before the first evaluation.

    `terms` holds the metrics of `estimate` as arrays. `statistics` holds results that are computed once for the
    network. `original` holds the metrics of the uncompressed network, and `network` is its digest. `evaluations` is the
    budget. `deciding` is the metric that decides: the mean score in [0, 1] of the network's task. `chance` is the score
    of guessing. Limits on the score are not constraints: the F2 score is the objective and ranks candidates, and limits
    on the score are checked after training, against the control. `level` is such a limit: the least accepted score of a
    *trained* network (F4). `images` is the number of images on which this score is measured. `level` and `images` are
    each None if not known. If the objective is not the score, all evaluations are full training runs and
    `level` is the least score that they must reach.
    """

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    estimate: Estimate
    terms: Mapping[str, Terms] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=dict)
    original: Mapping[str, float] = field(default_factory=dict)
    network: str = ""
    evaluations: int = 60
    level: float | None = None
    images: int | None = None
    chance: float = 0.0
    deciding: str = ACCURACY

    def __post_init__(self) -> None:
        if not self.objectives:
            raise InvalidInput("objectives", self.objectives, "a problem needs at least one objective")
        if self.evaluations < 1:
            raise InvalidInput("evaluations", self.evaluations, "the budget must be at least 1")
        if self.level is not None and not 0.0 <= self.level <= 1.0:
            raise InvalidInput("level", self.level, "must be a score in [0, 1]")
        if not 0.0 <= self.chance <= 1.0:
            raise InvalidInput("chance", self.chance, "must be a score in [0, 1]")
        if self.images is not None and self.images < 1:
            raise InvalidInput("images", self.images, "must be at least 1")
        for metric, terms in self.terms.items():
            if terms.knobs != tuple(knob.name for knob in self.space.levelled):
                raise InvalidInput(f"terms.{metric}", terms.knobs, "must have the space's levelled knobs, in order")

    @property
    def objective(self) -> Objective:
        """The first objective, which decides the single best candidate."""
        return self.objectives[0]

    @cached_property
    def layer_losses(self) -> Mapping[str, NDArray[np.float64]]:
        """For each knob with statistics, the loss (levels,) from turning only this knob, by its statistics."""
        return layer_losses(self.space, self.statistics)

    def proxy(self, batch: Sequence[Values]) -> NDArray[np.float64]:
        """Return the F1 proxy (n,) for n values: the summed layer losses; less is better.

        The proxy is cheap enough for thousands of values. Knobs missing from `layer_losses` count as 0, so only values
        in which these knobs are equal can be compared.
        """
        levels = self.space.levels_of(batch)
        total = np.zeros(len(levels))
        for column, knob in enumerate(self.space.levelled):
            if knob.name in self.layer_losses:
                total += self.layer_losses[knob.name][levels[:, column]]
        return total

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Return the summed relative violations of constraints and level; 0 means feasible.

        An unknown score counts as 0. Raises: InvalidInput if a metric of a constraint is missing.
        """
        found = sum(constraint.violation(metrics) for constraint in self.constraints)
        if self.level is None or self.objective.metric == self.deciding:
            return found
        return found + Constraint(self.deciding, self.level, "min").violation({self.deciding: 0.0, **metrics})

    def feasible(self, metrics: Mapping[str, float]) -> bool:
        """Return whether the metrics meet every constraint."""
        return self.violation(metrics) == 0.0

    def violations(self, batch: Sequence[Values]) -> NDArray[np.float64]:
        """Return the summed relative violations (n,) of n values, according to their estimated metrics."""
        total = np.zeros(len(batch))
        if not self.constraints or not batch:
            return total
        metrics = self.estimate(batch)
        for constraint in self.constraints:
            if constraint.metric not in metrics:
                raise InvalidInput("estimate", sorted(metrics), f"{constraint.metric} is not estimated")
            total += constraint.violations(np.asarray(metrics[constraint.metric], dtype=float))
        return total
