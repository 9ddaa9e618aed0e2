"""The problem: what may be changed, what is wanted and forbidden, what is known before any evaluation."""

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
"""n values -> metric key -> (n,): cheap, vectorised, deterministic; no training, no accuracy."""

Statistics: TypeAlias = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""name -> knob -> array, whatever was worked out once for the network; methods may add names. Those there are:

`sensitivity`   (levels,) the objective's metric with this knob alone at each level
`ls_error`      (levels,) relative least-squares reconstruction error at each level, 0 = nothing lost
`importance`    (width,)  score of each unit, any scale; a width knob keeps the highest
`fisher`        (width,)  Fisher score of each unit, whatever `importance` is; not of units that no gradient comes to
`gram`          (width, width) with p = 1 for the units that go, p'Gp is the share of the variance of what their
                readers put out that goes with them, without a refit
"""


@dataclass(frozen=True)
class Objective:
    """A metric and whether more or less of it is wanted."""

    metric: str
    goal: Goal

    def __post_init__(self) -> None:
        if self.goal not in ("min", "max"):
            raise InvalidInput("objective.goal", self.goal, "must be 'min' or 'max'")

    def utility(self, metrics: Mapping[str, float]) -> float:
        """The metric, signed so that more is better. Raises: InvalidInput where it is missing."""
        if self.metric not in metrics:
            raise InvalidInput("metrics", sorted(metrics), f"{self.metric} is missing")
        return metrics[self.metric] if self.goal == "max" else -metrics[self.metric]


@dataclass(frozen=True)
class Constraint:
    """`metric` must be at most (sense max) or at least (sense min) `bound`."""

    metric: str
    bound: float
    sense: Sense

    def __post_init__(self) -> None:
        if self.sense not in ("max", "min"):
            raise InvalidInput("constraint.sense", self.sense, "must be 'max' or 'min'")
        if not math.isfinite(self.bound):
            raise InvalidInput(self.metric, self.bound, "a bound must be a finite number")

    def violation(self, metrics: Mapping[str, float]) -> float:
        """How far over the bound, relative to |bound|; 0 when it is met. Raises: InvalidInput if missing."""
        if self.metric not in metrics:
            raise InvalidInput("metrics", sorted(metrics), f"{self.metric} is missing")
        return float(self.violations(np.array([metrics[self.metric]]))[0])

    def violations(self, column: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) values of the metric -> (n,) violations."""
        over = column - self.bound if self.sense == "max" else self.bound - column
        return np.maximum(over, 0.0) / (abs(self.bound) or 1.0)


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything a strategy may know before the first evaluation.

    `terms` gives a metric of `estimate` as arrays, `statistics` what was worked out about the network once,
    `original` the metrics of the untouched network, `network` its digest, `evaluations` the budget.
    Accuracy limits are no constraints here: F2 accuracy ranks candidates and is the objective; limits on
    accuracy are judged after training, against the control. `level` is such a limit, as the least accuracy of
    a *trained* network (F4) that is accepted, and `images` how many it is counted on; None: not known. Where
    something else is the objective, all evaluations are whole trainings and `level` bounds them. `chance` is the
    score of guessing. `deciding` is the metric that accuracy is short for above: the mean score of what the network is
    for, in [0, 1].
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
            raise InvalidInput("level", self.level, "must be an accuracy in [0, 1]")
        if not 0.0 <= self.chance <= 1.0:
            raise InvalidInput("chance", self.chance, "must be an accuracy in [0, 1]")
        if self.images is not None and self.images < 1:
            raise InvalidInput("images", self.images, "must be at least 1")
        for metric, terms in self.terms.items():
            if terms.knobs != tuple(knob.name for knob in self.space.levelled):
                raise InvalidInput(f"terms.{metric}", terms.knobs, "must have the space's levelled knobs, in order")

    @property
    def objective(self) -> Objective:
        """The first objective: what one best candidate is chosen by."""
        return self.objectives[0]

    @cached_property
    def layer_losses(self) -> Mapping[str, NDArray[np.float64]]:
        """Knob -> (levels,) the loss by statistics of this knob alone; without knobs that they say nothing of."""
        return layer_losses(self.space, self.statistics)

    def proxy(self, batch: Sequence[Values]) -> NDArray[np.float64]:
        """F1: n values -> (n,) summed layer losses, the less the better. Cheap enough to ask for by thousands.

        Knobs that `layer_losses` lacks count nothing, so that networks are compared at the same values of those.
        """
        levels = self.space.levels_of(batch)
        total = np.zeros(len(levels))
        for column, knob in enumerate(self.space.levelled):
            if knob.name in self.layer_losses:
                total += self.layer_losses[knob.name][levels[:, column]]
        return total

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Summed relative violations of the constraints and the level; 0 = feasible. Raises: InvalidInput if missing.

        An accuracy that is not known does not reach the level.
        """
        found = sum(constraint.violation(metrics) for constraint in self.constraints)
        if self.level is None or self.objective.metric == self.deciding:
            return found
        return found + Constraint(self.deciding, self.level, "min").violation({self.deciding: 0.0, **metrics})

    def feasible(self, metrics: Mapping[str, float]) -> bool:
        """Whether every constraint is met."""
        return self.violation(metrics) == 0.0

    def violations(self, batch: Sequence[Values]) -> NDArray[np.float64]:
        """n values -> (n,) summed relative violations of their estimated metrics."""
        total = np.zeros(len(batch))
        if not self.constraints or not batch:
            return total
        metrics = self.estimate(batch)
        for constraint in self.constraints:
            if constraint.metric not in metrics:
                raise InvalidInput("estimate", sorted(metrics), f"{constraint.metric} is not estimated")
            total += constraint.violations(np.asarray(metrics[constraint.metric], dtype=float))
        return total
