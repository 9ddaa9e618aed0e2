"""One global sparsity s in [0, 1) for the whole space (Condensa, Joseph et al. 2019, arXiv 1911.02497).

- Widths share one threshold: of all units of all width knobs, the share s that has the lowest scores is removed.
  Condensa compares filter norms directly. Layers with large fan-in then dominate, and other kinds of importance
  (gradients) differ by orders of magnitude between layers. So importance orders the units of a knob, and sensitivity
  scales their scores: the scores of the units removed at a knob's least value sum to the loss measured at that value.
  Without sensitivities, the knobs' mean scores are made equal. Widths are rounded down to an allowed width, as `align`
  does.
- An ordered knob without scores, and a density (the knob `weight_prune`), keeps the share 1 - s of its largest value.
- Unordered knobs (int8, fp16) are set to their last option, because the scheme is given and s is its only free number.
  If no sparsity is then estimated to meet the limits (int8 is slower than fp32 on some devices), these knobs stay
  whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from search.errors import InvalidInput
from search.knowledge import values_key
from search.problem import Problem
from search.space import Choice, Float, Int, Knob, Levelled, Subset, Value, Values
from search.stepping.lattice import Rungs

_POINTS = 1000  # number of points of the grid: finer steps make no measurable difference in the score
_SPARSEST = 0.995  # largest sparsity if no knob has a minimum: no network works with less than 1 weight in 200
SETTINGS = ("bits", "option")
"""Roles of knobs that a sparsity does not set, because the scheme determines how numbers are stored and computed."""
_ROUNDING = 1e-9
_TINY = float(np.finfo(float).tiny)
_LEAST = 0.005  # least share of the objective that a knob is assumed to lose, because its measured loss is noisy


@dataclass(frozen=True, eq=False)
class Sparsities:
    """The n distinct points of the space along s, ascending, each with the smallest s that leads to it.

    `s` are the sparsities (n,). `x` is a coordinate (n,) in [0, 1] along which the score changes evenly: s for units,
    and -log10(1 - s) for weights, whose interesting region is between 0.9 and 0.995. `values` are the n points.
    """

    s: NDArray[np.float64]
    x: NDArray[np.float64]
    values: tuple[dict[str, Value], ...]

    @classmethod
    def of(cls, problem: Problem) -> Sparsities:
        """Return the points of a problem's space along s. Raises: InvalidInput if a knob is a Subset or no knob is
        ordered.
        """
        knobs = problem.space.knobs
        for knob in knobs:
            if isinstance(knob, Subset):
                raise InvalidInput(knob.name, knob, "a sparsity sets widths and densities, not subsets")
        if all(knob.role in SETTINGS for knob in knobs):
            raise InvalidInput("knobs", problem.space.names, "a sparsity needs a width or a density to act on")
        compressed = cls._along(problem, whole=False)
        if not compressed._any_feasible(problem):
            untouched = cls._along(problem, whole=True)
            return untouched if untouched._any_feasible(problem) else compressed
        return compressed

    def _any_feasible(self, problem: Problem) -> bool:
        return bool((problem.violations(self.values) == 0.0).any())

    @classmethod
    def _along(cls, problem: Problem, whole: bool) -> Sparsities:
        s = _grid(problem)
        columns = {**_thresholded(problem, s), **_shared(problem, s, whole)}
        found: dict[str, tuple[int, dict[str, Value]]] = {}
        for i in range(len(s)):
            values = {name: columns[name][i] for name in problem.space.names}
            found.setdefault(values_key(values), (i, values))
        first = [i for i, _ in found.values()]
        return cls(s[first], _coordinate(problem, s[first]), tuple(values for _, values in found.values()))

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {values_key(values): i for i, values in enumerate(self.values)}

    def index(self, values: Values) -> int | None:
        """Return the index of the point with these values; None if there is none."""
        return self._indices.get(values_key(values))


def densities(problem: Problem) -> list[Float]:
    """Return the knobs that set a share of single weights."""
    return [
        knob for knob in problem.space.knobs if isinstance(knob, Float) and knob.role == "density" and knob.low >= 0.0
    ]


def _grid(problem: Problem) -> NDArray[np.float64]:
    """Return sparsities evenly spaced on the coordinate, from 0 to the largest possible."""
    shares = densities(problem)
    if not shares:
        return np.arange(_POINTS) / _POINTS
    least = min(knob.low / knob.high for knob in shares) or 1.0 - _SPARSEST
    return np.asarray(1.0 - np.logspace(0.0, np.log10(least), _POINTS + 1))


def _coordinate(problem: Problem, s: NDArray[np.float64]) -> NDArray[np.float64]:
    x = -np.log10(1.0 - s) if densities(problem) else s
    return np.asarray(x / max(float(x[-1]), _TINY))


def _thresholded(problem: Problem, s: NDArray[np.float64]) -> dict[str, list[Value]]:
    """Return name -> n values of the knobs with scores, set by one threshold; of units with equal scores, knobs lose
    equal shares.
    """
    scores = _scores(problem)
    if not scores:
        return {}
    owners = np.repeat(np.arange(len(scores)), [len(own) for own in scores.values()])
    places = np.concatenate([np.argsort(np.argsort(own, kind="stable")) / len(own) for own in scores.values()])
    owners = owners[np.lexsort((places, np.concatenate(list(scores.values()))))]
    gone = np.floor(s * len(owners) + _ROUNDING).astype(int)
    found = {}
    for number, (name, own) in enumerate(scores.items()):
        lost = np.append(0, np.cumsum(owners == number))[gone]
        found[name] = _snapped(problem.space[name], 1.0 - lost / len(own))
    return found


def _scored(knob: Knob, problem: Problem) -> TypeGuard[Levelled]:
    if not isinstance(knob, Int | Choice) or knob.role in SETTINGS:
        return False
    scores = problem.statistics.get("importance", {}).get(knob.name)
    return scores is not None and bool(len(scores)) and bool(np.isfinite(scores).all())


def _scores(problem: Problem) -> dict[str, NDArray[np.float64]]:
    """Return knob -> (width,) scores that are comparable between knobs."""
    own = {
        knob.name: _relative(problem.statistics["importance"][knob.name])
        for knob in problem.space.knobs
        if _scored(knob, problem)
    }
    losses = {name: _loss(problem, name) for name in own}
    known = {name: loss for name, loss in losses.items() if loss is not None}
    if len(known) < len(own):
        return own
    return {name: scores * known[name] / _cut(problem, name, scores) for name, scores in own.items()}


def _relative(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores scaled to mean 1 and rounded, so that scores that differ in their last bits become equal."""
    sizes = np.abs(np.asarray(scores, dtype=float))
    return np.asarray(np.round(sizes / max(float(sizes.mean()), _TINY), 9))


def _cut(problem: Problem, name: str, scores: NDArray[np.float64]) -> float:
    """Return the sum of the scores removed at the knob's smallest value, but at least a thousandth of all scores."""
    count = round((1.0 - float(_rungs(problem.space[name]).shares[0])) * len(scores))
    return max(float(np.sort(scores)[:count].sum()), len(scores) / 1000)


def _loss(problem: Problem, name: str) -> float | None:
    """Return the objective's loss if only this knob is at its smallest value, from its sensitivity; None if unknown."""
    known = problem.statistics.get("sensitivity", {}).get(name)
    if known is None or len(known) < 2 or not np.isfinite(known).all():
        return None
    lost = abs(float(known[-1] - known[0]))
    return max(lost, _LEAST * abs(float(known[-1])))


def _shared(problem: Problem, s: NDArray[np.float64], whole: bool) -> dict[str, list[Value]]:
    """Return name -> n values of the knobs without scores. Bits and options do not depend on s."""
    found: dict[str, list[Value]] = {}
    for knob in problem.space.knobs:
        if knob.role in SETTINGS:
            found[knob.name] = [knob.whole if whole else knob.least] * len(s)
        elif not _scored(knob, problem):
            found[knob.name] = _snapped(knob, 1.0 - s)
    return found


def _snapped(knob: Knob, shares: NDArray[np.float64]) -> list[Value]:
    """Return for each of (n,) shares the knob's largest value that is at most this share of its maximum, or else its
    minimum.
    """
    if isinstance(knob, Float):
        top, low = (knob.high, 0.0) if knob.low >= 0.0 else (knob.high - knob.low, knob.low)
        return [float(value) for value in np.clip(low + shares * top, knob.low, knob.high)]
    rungs = _rungs(knob)
    at = np.maximum(np.searchsorted(rungs.shares, shares + _ROUNDING, side="right") - 1, 0)
    return [rungs.values[i] for i in at]


def _rungs(knob: Knob) -> Rungs:
    """Return all values of an ordered knob as rungs."""
    assert isinstance(knob, Int | Choice)  # `of` has refused Subset, and a Float has no rungs
    options = knob.options if isinstance(knob, Choice) else tuple(range(knob.low, knob.high + 1))
    return Rungs(knob.name, options, ordered=True)
