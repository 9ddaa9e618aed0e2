"""Moves on the lattice, using estimates only: down to a limit at the least loss, and back up if there is slack."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.stepping.lattice import Lattice, Point

Loss: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Function from (n, d) rungs to (n,) predicted losses."""

_TINY = 1e-9  # a gain in violation below this is only a rounding error


class Moves:
    """Greedy walks under predicted losses. `banned` holds (knob, option) pairs to which no walk moves."""

    def __init__(self, lattice: Lattice, loss: Loss, banned: Collection[tuple[int, int]] = frozenset()) -> None:
        self._lattice = lattice
        self._loss = loss
        self._banned = frozenset(banned)

    def sweep(self, point: Point, knob: int, rungs: range) -> NDArray[np.int64]:
        """Return (len(rungs), d) points, one for each of these rungs of the knob; the other knobs keep theirs."""
        points = np.repeat(point[None], len(rungs), axis=0)
        points[:, knob] = np.array(rungs, dtype=np.int64)
        return points

    def lower(self, point: Point, knob: int, target: float, floor: int = 0) -> Point:
        """Step the knob down to the highest rung whose violation is at most `target`.

        If there is no such rung, go to the rung, not below `floor`, with the smallest violation; stay if no rung gains
        anything.
        """
        points = self.sweep(point, knob, range(int(point[knob]), floor - 1, -1))
        violations = self._lattice.violations(points)
        reaches = np.flatnonzero(violations <= target)
        return np.asarray(points[reaches[0] if len(reaches) else int(np.argmin(violations))])

    def fill(self, point: Point, target: float, frozen: Collection[int] = frozenset()) -> Point | None:
        """Return the end of `walk`; None if it ends before the target."""
        reached, violation = self.walk(point, target, frozen)
        return reached if violation <= target else None

    def walk(self, point: Point, target: float, frozen: Collection[int] = frozenset()) -> tuple[Point, float]:
        """Step down, each time at the least loss per violation removed, and return the end and its violation.

        The walk ends when the violation is at most `target` or no step gains anything; `frozen` knobs stay.
        """
        at = point
        violation = self._lattice.violation(at)
        while violation > target:
            steps = self._steps_down(at, frozen)
            if not len(steps):
                break
            violations = self._lattice.violations(steps)
            gains = violation - np.maximum(violations, target)
            costs = np.maximum(self._loss(steps) - self._loss(at[None]), 0.0)
            useful = gains > _TINY
            if not useful.any():
                break
            prices = np.where(useful, (costs + _TINY) / np.maximum(gains, _TINY), np.inf)
            chosen = int(np.argmin(prices))
            at, violation = steps[chosen], float(violations[chosen])
        return at, violation

    def give_back(self, point: Point, target: float = 0.0, frozen: Collection[int] = frozenset()) -> Point:
        """Raise widths while the violation stays within `target`; the steps that save the most loss come first."""
        at = point
        while True:
            steps = self._steps_up(at, frozen)
            if not len(steps):
                return at
            saved = np.where(
                self._lattice.violations(steps) <= target, self._loss(at[None]) - self._loss(steps), -np.inf
            )
            if saved.max() <= 0.0:
                return at
            at = steps[int(np.argmax(saved))]

    def _steps_down(self, point: Point, frozen: Collection[int]) -> NDArray[np.int64]:
        """Return the points at all lower rungs of each ordered knob (on a staircase, some gain nothing) and at all
        other options.
        """
        steps = [self.sweep(point, i, range(int(point[i]))) for i in self._lattice.ordered if i not in frozen]
        for i in self._lattice.unordered:
            if i not in frozen:
                others = self.sweep(point, i, range(self._lattice.counts[i]))
                steps.append(others[[self._allowed(i, o, int(point[i])) for o in range(len(others))]])
        return np.concatenate([np.empty((0, len(point)), dtype=np.int64), *steps])

    def _steps_up(self, point: Point, frozen: Collection[int]) -> NDArray[np.int64]:
        steps = [
            self.sweep(point, i, range(int(point[i]) + 1, self._lattice.counts[i]))
            for i in self._lattice.ordered
            if i not in frozen
        ]
        return np.concatenate([np.empty((0, len(point)), dtype=np.int64), *steps])

    def allows(self, point: Point) -> bool:
        """Return whether the point has no banned option."""
        return not any((i, int(point[i])) in self._banned for i in self._lattice.unordered)

    def _allowed(self, knob: int, option: int, current: int) -> bool:
        return option != current and (knob, option) not in self._banned
