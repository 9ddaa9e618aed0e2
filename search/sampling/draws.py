"""Draws: draw random points until the estimate of a point meets the limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from search.errors import Infeasible
from search.knowledge import values_key
from search.problem import Problem
from search.space import Space, Value, Values

BATCH = 64
BATCHES = 32


def drawn(
    problem: Problem,
    rng: np.random.Generator,
    fresh: Callable[[Values], bool],
    batch: int = BATCH,
    batches: int = BATCHES,
) -> dict[str, Value] | None:
    """Return the first drawn point that is feasible and fresh; None if all feasible points that were drawn are already
    known.

    Every batch is drawn from a smaller box than the one before; the last box contains little more than the smallest
    network. The boxes shrink because, under a tight limit, draws from the whole space would hardly ever be feasible.
    Raises: Infeasible if no drawn point meets the limits; it carries the nearest point.
    """
    nearest: tuple[float, dict[str, Value]] | None = None
    for points in _batches(problem.space, rng, batch, batches):
        violations = problem.violations(points)
        for i in np.flatnonzero(violations == 0.0):
            if fresh(points[i]):
                return points[i]
        least = int(np.argmin(violations))
        if nearest is None or violations[least] < nearest[0]:
            nearest = float(violations[least]), points[least]
    assert nearest is not None  # there is always at least one batch with one point
    if nearest[0] > 0.0:
        violation, values = nearest
        estimate = problem.estimate([values])
        raise Infeasible(values, {name: float(column[0]) for name, column in estimate.items()}, violation)
    return None


def _batches(space: Space, rng: np.random.Generator, batch: int, batches: int) -> Iterator[list[dict[str, Value]]]:
    for number in range(batches):
        share = 1.0 - number / batches
        points = [_sample(space, rng, share) for _ in range(batch)]
        yield list({values_key(values): values for values in points}.values())


def _sample(space: Space, rng: np.random.Generator, share: float) -> dict[str, Value]:
    """Draw a point whose ordered knobs lie in the lower `share` of their range; other knobs use their whole range."""
    values = space.sample(rng)
    if share == 1.0:
        return values
    for knob in space.knobs:
        if knob.ordered:
            values[knob.name] = knob.decode(knob.encode(values[knob.name]) * share)
    return values
