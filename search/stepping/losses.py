"""What cuts are predicted to cost: a Bayesian linear model over per-knob loss curves.

A curve says how the loss of one knob grows from rung to rung (F1: sensitivity, least-squares error or
importance; without statistics the convex shape that cuts usually have). Evaluations then scale each curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.problem import Problem
from search.stepping.lattice import Lattice, Point, Rungs

_SHAPE = 1.5  # the exponent of a curve nothing is known about: damage grows faster than the cut
_SPREAD = 1.5  # prior standard deviation of a knob's scale over the common one: they differ by tenfold
_LEAST = 0.1  # of the usual shape: no cut is free, whatever a statistic says
_NOISE = 0.005  # standard deviation of an evaluation, as a share of the original's objective
_MISFIT = 0.1  # what a linear model misses of a loss: steep where a network collapses


@dataclass(frozen=True, eq=False)
class Prediction:
    """(n,) predicted losses against the uncut network, and their standard deviations."""

    loss: NDArray[np.float64]
    sigma: NDArray[np.float64]


class Losses:
    """Predicts the loss of the objective at any point of the lattice; `fit` returns a new, better informed one."""

    def __init__(self, problem: Problem, lattice: Lattice) -> None:
        self._lattice = lattice
        known = problem.original.get(problem.objective.metric)
        self._uncut = None if known is None else problem.objective.utility(problem.original)
        self.unit = abs(self._uncut or 1.0)
        self._curves = _curves(problem, lattice, self._uncut, self.unit)
        self._columns = 1 + sum(len(curve) - 1 if i in lattice.unordered else 1 for i, curve in self._curves)
        self._mean, self._covariance = self._prior(1.0)

    @property
    def _curve_count(self) -> int:
        return self._columns - 1

    def _prior(self, scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scales of the curves, all alike, and last the offset between the original's score and F2's."""
        mean = np.append(np.full(self._curve_count, scale), 0.0)
        deviations = np.append(np.full(self._curve_count, _SPREAD * scale), 4 * _NOISE * self.unit)
        return mean, np.diag(deviations**2)

    def features(self, points: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, d) rungs -> (n, columns): each knob's curve at its rung, one-hot options, and a constant 1."""
        columns = []
        for i, curve in self._curves:
            if i in self._lattice.unordered:
                columns += [curve[option] * (points[:, i] == option) for option in range(1, len(curve))]
            else:
                columns.append(curve[points[:, i]])
        return np.stack([*columns, np.ones(len(points))], axis=1)

    def loss(self, points: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, d) rungs -> (n,) predicted losses against the uncut network, in units of the objective."""
        return np.asarray(self.features(points)[:, :-1] @ self._mean[:-1])

    def predict(self, points: NDArray[np.int64]) -> Prediction:
        """(n, d) rungs -> losses with the uncertainty of the curves' scales."""
        features = self.features(points)
        features[:, -1] = 0.0  # the offset is common to all points: it says nothing about which is better
        variance = np.einsum("nc,ck,nk->n", features, self._covariance, features)
        return Prediction(self.loss(points), np.sqrt(np.maximum(variance, 0.0)))

    def fit(self, points: Sequence[Point], utilities: Sequence[float]) -> Losses:
        """The posterior after these evaluations, from the prior: it does not matter what was fitted before."""
        fitted = copy(self)
        if not points:
            fitted._mean, fitted._covariance = self._prior(1.0)
            return fitted
        features = self.features(np.stack(points))
        uncut = max(utilities) if self._uncut is None else self._uncut
        losses = uncut - np.array(utilities)
        weights = 1.0 / (_NOISE * self.unit + _MISFIT * np.maximum(losses, 0.0)) ** 2
        mean, covariance = self._prior(_common_scale(features[:, :-1].sum(axis=1), losses, weights))
        precision = np.linalg.inv(covariance)
        posterior = np.asarray(np.linalg.inv(precision + (features.T * weights) @ features), dtype=np.float64)
        evidence = features.T @ (weights * losses)
        fitted._mean = np.asarray(posterior @ (precision @ mean + evidence), dtype=np.float64)
        # A cut that seems to gain accuracy is noise: keep a little of its price, so that ties go to less cut.
        fitted._mean[:-1] = np.maximum(fitted._mean[:-1], 0.05 * mean[:-1])
        fitted._covariance = posterior
        return fitted


def _common_scale(totals: NDArray[np.float64], losses: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Least squares of losses = scale * totals, pulled towards 1 as by one observation of its own size."""
    pull = float(np.mean(weights * totals**2)) or 1.0
    scale = (pull + float(weights @ (totals * losses))) / (pull + float(weights @ totals**2))
    return max(scale, 0.1)


def _curves(
    problem: Problem, lattice: Lattice, uncut: float | None, unit: float
) -> list[tuple[int, NDArray[np.float64]]]:
    """(knob, loss at each rung), 0 at the top. Ordered knobs from the statistic that covers most of them."""
    found: dict[int, NDArray[np.float64]] = {}
    for kind in ("sensitivity", "ls_error", "importance"):
        curves = {
            i: curve
            for i in lattice.ordered
            if (curve := _statistic(kind, lattice.rungs[i], problem, uncut)) is not None
        }
        if len(curves) > len(found):
            found = _scaled(curves, kind, unit)
    shapes = {i: 0.1 * unit * (1.0 - lattice.rungs[i].shares) ** _SHAPE for i in lattice.ordered}
    found = {i: _smoothed(curve, shapes[i]) for i, curve in found.items()}
    size = float(np.median([found[i][0] / shapes[i][0] for i in found if shapes[i][0]] or [1.0]))
    for i in lattice.ordered:
        found.setdefault(i, shapes[i] * size)
    for i in lattice.unordered:  # an option of precision is expected to cost about what the noise is
        found[i] = np.append(0.0, np.full(lattice.counts[i] - 1, _NOISE * unit))
    return sorted(found.items())


def _statistic(kind: str, rungs: Rungs, problem: Problem, uncut: float | None) -> NDArray[np.float64] | None:
    """(rungs,) one knob's loss at each rung by a statistic, 0 at the top; None where it is unusable."""
    array = problem.statistics.get(kind, {}).get(rungs.name)
    if array is None or not np.isfinite(array).all():
        return None
    if kind == "importance":
        raw = _lost_importance(rungs, array)
    elif len(array) != len(rungs.values):
        return None
    elif kind == "sensitivity":
        signed = array if problem.objective.goal == "max" else -array
        raw = (signed[-1] if uncut is None else uncut) - signed
    else:
        raw = np.asarray(array, dtype=float)
    return np.asarray(np.maximum(raw - raw[-1], 0.0))


def _smoothed(curve: NDArray[np.float64], shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half the curve, made to rise with the cut, and half the usual shape scaled to it.

    Statistics carry noise: taken as they are, a flat stretch of a curve would make a deep cut look free.
    """
    scale = float(curve @ shape) / max(float(shape @ shape), np.finfo(float).tiny)
    rising = np.maximum.accumulate(curve[::-1])[::-1]
    return np.asarray(0.5 * rising + 0.5 * max(scale, _LEAST) * shape)


def _lost_importance(rungs: Rungs, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the summed scores that goes when a knob keeps its best units only."""
    ascending = np.sort(np.abs(scores))
    lost = np.append(0.0, np.cumsum(ascending)) / max(float(ascending.sum()), np.finfo(float).tiny)
    cut = np.round((1.0 - rungs.shares) * len(scores)).astype(int)
    return np.asarray(lost[cut])


def _scaled(curves: Mapping[int, NDArray[np.float64]], kind: str, unit: float) -> dict[int, NDArray[np.float64]]:
    """Sensitivities are losses already. Other statistics only say which knob loses more than which: their
    bottom rungs are taken to lose a tenth of the objective on average, until evaluations say otherwise."""
    bottom = float(np.mean([curve[0] for curve in curves.values()] or [0.0]))
    if kind == "sensitivity" or not bottom:
        return dict(curves)
    return {i: curve * 0.1 * unit / bottom for i, curve in curves.items()}
