"""Repairs: many points at once, moved to just within the limits; `Moves` does the same for one point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.stepping.lattice import Lattice
from search.stepping.moves import Loss

Points = NDArray[np.int64]
"""(n, d) rungs."""

_TINY = 1e-9  # a gain in violation below this is only a rounding error


class Repairs:
    """Steps of ordered knobs, under predicted losses; unordered knobs stay."""

    def __init__(self, lattice: Lattice, loss: Loss) -> None:
        self._lattice = lattice
        self._loss = loss
        steps = [(i, rung) for i in lattice.ordered for rung in range(lattice.counts[i])]
        self._knobs, self._rungs = np.array(steps, dtype=np.int64).reshape(-1, 2).T

    def within(self, points: Points, rng: np.random.Generator, spread: float) -> Points:
        """Return the points that reach the limits by steps down, in order, each raised until no step up fits.

        Each time, the step with the least loss per violation removed is taken. Prices are multiplied by log-normal
        numbers of this spread, so that equal points may end at different ones.
        """
        lowered = self._lowered(points.copy(), rng, spread)
        return self._raised(lowered[self._lattice.violations(lowered) <= 0.0])

    def _lowered(self, found: Points, rng: np.random.Generator, spread: float) -> Points:
        violations = self._lattice.violations(found)
        open_rows = np.flatnonzero(violations > 0.0)
        while len(open_rows) and len(self._knobs):
            steps, valid = self._steps(found[open_rows], up=False)
            reached = self._over(steps, valid)
            gains = violations[open_rows, None] - reached
            costs = np.maximum(self._losses(steps, valid) - self._loss(found[open_rows])[:, None], 0.0)
            noise = np.exp(spread * rng.standard_normal(gains.shape))
            prices = np.where(gains > _TINY, noise * (costs + _TINY) / np.maximum(gains, _TINY), np.inf)
            best, rows = np.argmin(prices, axis=1), np.arange(len(open_rows))
            useful = np.isfinite(prices[rows, best])
            open_rows, best, rows = open_rows[useful], best[useful], rows[useful]
            found[open_rows], violations[open_rows] = steps[rows, best], reached[rows, best]
            open_rows = open_rows[violations[open_rows] > 0.0]
        return found

    def _raised(self, found: Points) -> Points:
        open_rows = np.arange(len(found))
        while len(open_rows) and len(self._knobs):
            steps, valid = self._steps(found[open_rows], up=True)
            fits = self._over(steps, valid) <= 0.0
            saved = np.where(fits, self._loss(found[open_rows])[:, None] - self._losses(steps, valid), -np.inf)
            best, rows = np.argmax(saved, axis=1), np.arange(len(open_rows))
            useful = saved[rows, best] > 0.0
            open_rows, best, rows = open_rows[useful], best[useful], rows[useful]
            found[open_rows] = steps[rows, best]
        return found

    def _steps(self, points: Points, up: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return (n, steps, d) points, each with one ordered knob at another rung, and which of them (n, steps) go in
        this direction.
        """
        steps = np.repeat(points[:, None], len(self._knobs), axis=1)
        at = np.arange(len(self._knobs))
        before = steps[:, at, self._knobs]
        steps[:, at, self._knobs] = self._rungs
        return steps, self._rungs > before if up else self._rungs < before

    def _over(self, steps: NDArray[np.int64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        found = np.full(valid.shape, np.inf)
        found[valid] = self._lattice.violations(steps[valid])
        return found

    def _losses(self, steps: NDArray[np.int64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        found = np.full(valid.shape, np.inf)
        found[valid] = self._loss(steps[valid])
        return found
