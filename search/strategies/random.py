"""Random search under the limit: points drawn until their estimate meets the constraints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from search.candidate import Candidate
from search.errors import Infeasible
from search.evaluation import Evaluation
from search.knowledge import Knowledge, values_key
from search.problem import Problem
from search.settings import Bounds, Doc
from search.space import Choice, Float, Int, Space, Value
from search.strategy import StrategyFamily


@dataclass(frozen=True)
class Settings:
    """How long a draw may take."""

    batch: Annotated[int, Doc("points drawn and estimated at once"), Bounds(1, 4096)] = 64
    batches: Annotated[int, Doc("batches drawn for one candidate before giving up"), Bounds(1, 1000)] = 32


class Random:
    """Candidate n is the first point of `default_rng([seed, n])` that is feasible and not known yet.

    Every batch is drawn from a smaller box than the one before it, the last one from little more than the
    smallest network: under a tight limit a plain draw would hardly ever be feasible.
    """

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        self._problem = problem
        self._settings = settings
        self._seed = seed
        self._known = Knowledge(problem, "random", seed)

    def ask(self, count: int) -> list[Candidate]:
        drawn = []
        for _ in range(count):
            values = self._draw(np.random.default_rng([self._seed, self._known.asked]))
            if values is None:
                break
            drawn.append(self._known.candidate(values))
        return drawn

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._known.note(evaluations, pending)

    def _draw(self, rng: np.random.Generator) -> dict[str, Value] | None:
        """Feasible values not known yet; None where every feasible point drawn is known: nothing is left."""
        nearest: tuple[float, dict[str, Value]] | None = None
        for batch in self._batches(rng):
            violations = self._problem.violations(batch)
            for i in np.flatnonzero(violations == 0.0):
                if self._known.fresh(batch[i]):
                    return batch[i]
            least = int(np.argmin(violations))
            if nearest is None or violations[least] < nearest[0]:
                nearest = float(violations[least]), batch[least]
        assert nearest is not None  # Settings allows no fewer than one batch of one point
        if nearest[0] > 0.0:
            raise self._infeasible(*nearest)
        return None

    def _batches(self, rng: np.random.Generator) -> Iterator[list[dict[str, Value]]]:
        for number in range(self._settings.batches):
            share = 1.0 - number / self._settings.batches
            drawn = [_sample(self._problem.space, rng, share) for _ in range(self._settings.batch)]
            yield list({values_key(values): values for values in drawn}.values())

    def _infeasible(self, violation: float, values: dict[str, Value]) -> Infeasible:
        estimate = self._problem.estimate([values])
        return Infeasible(values, {name: float(column[0]) for name, column in estimate.items()}, violation)


def _sample(space: Space, rng: np.random.Generator, share: float) -> dict[str, Value]:
    """A point whose ordered knobs lie in the lower `share` of their range; the others are drawn as ever."""
    values = space.sample(rng)
    if share == 1.0:
        return values
    for knob in space.knobs:
        if isinstance(knob, Float | Int) or (isinstance(knob, Choice) and knob.ordered):
            values[knob.name] = knob.decode(knob.encode(values[knob.name]) * share)
    return values


STRATEGY = StrategyFamily(
    name="random",
    summary="Random points under the limits: the least that a strategy has to beat.",
    source="Bergstra and Bengio 2012, Random Search for Hyper-Parameter Optimization",
    settings=Settings,
    make=Random,
    baseline=True,
)
