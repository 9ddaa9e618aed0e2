"""Curves: the loss of each knob at each of its rungs, from statistics, or by the shape that cuts usually have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.problem import Problem
from search.stepping.lattice import Lattice, Rungs

Curve: TypeAlias = NDArray[np.float64]
"""Losses (rungs,) of one knob, relative to the whole network."""

NOISE = 0.005
"""The standard deviation of an evaluation, as a share of the original's objective."""

_SHAPE = 1.5  # exponent of a curve without statistics: damage grows faster than the cut
_LEAST = 0.1  # least share of the usual shape: no cut is free, whatever a statistic says


def knob_curves(problem: Problem, lattice: Lattice, uncut: float | None, unit: float) -> list[tuple[int, Curve]]:
    """Return (knob, loss at each rung) pairs; the loss is 0 at the top. Ordered knobs use the statistic that most of
    them have.
    """
    found: dict[int, NDArray[np.float64]] = {}
    for kind in ("sensitivity", "ls_error", "importance"):
        curves = {
            i: curve for i in lattice.ordered if (curve := curve_by(kind, lattice.rungs[i], problem, uncut)) is not None
        }
        if len(curves) > len(found):
            found = _scaled(curves, kind, unit)
    shapes = {i: usual_shape(lattice.rungs[i], unit) for i in lattice.ordered}
    found = {i: smoothed(curve, shapes[i]) for i, curve in found.items()}
    size = float(np.median([found[i][0] / shapes[i][0] for i in found if shapes[i][0]] or [1.0]))
    for i in lattice.ordered:
        found.setdefault(i, shapes[i] * size)
    for i in lattice.unordered:  # an option that lowers precision is expected to lose about as much as the noise
        found[i] = np.append(0.0, np.full(lattice.counts[i] - 1, NOISE * unit))
    return sorted(found.items())


def usual_shape(rungs: Rungs, unit: float) -> Curve:
    """Return the shape (rungs,) that the loss of an ordered knob usually has: a tenth of the objective at share 0."""
    return np.asarray(0.1 * unit * (1.0 - rungs.shares) ** _SHAPE)


def curve_by(kind: str, rungs: Rungs, problem: Problem, uncut: float | None) -> Curve | None:
    """Return the loss (rungs,) of an ordered knob according to a statistic, 0 at the top; None if the statistic is
    unusable. For scores of units, it is the share of their sum that is lost.
    """
    array = problem.statistics.get(kind, {}).get(rungs.name)
    if array is None or not np.isfinite(array).all():
        return None
    if kind in ("importance", "fisher"):
        raw = _lost_importance(rungs, array)
    elif len(array) != len(rungs.values):
        return None
    elif kind == "sensitivity":
        signed = array if problem.objective.goal == "max" else -array
        raw = (signed[-1] if uncut is None else uncut) - signed
    else:
        raw = np.asarray(array, dtype=float)
    return np.asarray(np.maximum(raw - raw[-1], 0.0))


def smoothed(curve: NDArray[np.float64], shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of two curves: this one, made to rise with the cut, and the usual shape at the same scale.

    Statistics are noisy: without smoothing, a flat part of a curve would make a deep cut look free.
    """
    scale = float(curve @ shape) / max(float(shape @ shape), np.finfo(float).tiny)
    rising = np.maximum.accumulate(curve[::-1])[::-1]
    return np.asarray(0.5 * rising + 0.5 * max(scale, _LEAST) * shape)


def _lost_importance(rungs: Rungs, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the summed scores that is lost when a knob keeps only its best units."""
    ascending = np.sort(np.abs(scores))
    lost = np.append(0.0, np.cumsum(ascending)) / max(float(ascending.sum()), np.finfo(float).tiny)
    cut = np.round((1.0 - rungs.shares) * len(scores)).astype(int)
    return np.asarray(lost[cut])


def _scaled(curves: Mapping[int, NDArray[np.float64]], kind: str, unit: float) -> dict[int, NDArray[np.float64]]:
    """Scale the curves to losses. Sensitivities are losses already; other statistics only compare knobs.

    The curves of other statistics are scaled so that their bottom rungs lose a tenth of the objective on average.
    Evaluations correct this later.
    """
    bottom = float(np.mean([curve[0] for curve in curves.values()] or [0.0]))
    if kind == "sensitivity" or not bottom:
        return dict(curves)
    return {i: curve * 0.1 * unit / bottom for i, curve in curves.items()}
