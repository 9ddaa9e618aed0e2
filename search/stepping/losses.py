"""Losses: predict the loss that cuts cause, with a Bayesian linear model over the loss curves of the knobs.

A curve gives the loss of one knob at each rung. It comes from F1 statistics (sensitivity, least-squares error or
importance) or, without statistics, has the convex shape that cuts usually have. Evaluations then scale each curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.problem import Problem
from search.stepping.lattice import Lattice, Point, Rungs

_SHAPE = 1.5  # exponent of a curve without statistics: damage grows faster than the cut
_SPREAD = 1.5  # prior standard deviation of a knob's scale relative to the common scale; scales differ tenfold
_LEAST = 0.1  # least share of the usual shape: no cut is free, whatever a statistic says
_NOISE = 0.005  # standard deviation of an evaluation, as a share of the original's objective
_MISFIT = 0.1  # error of the linear model, as a share of the loss; it is large if a network collapses


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted losses (n,) relative to the uncut network, and their standard deviations."""

    loss: NDArray[np.float64]
    sigma: NDArray[np.float64]


class Losses:
    """Model that predicts the objective's loss at any point of the lattice; `fit` returns an updated model."""

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
        """Return the prior: equal scales of the curves and, last, the offset of F2 scores from the original's score."""
        mean = np.append(np.full(self._curve_count, scale), 0.0)
        deviations = np.append(np.full(self._curve_count, _SPREAD * scale), 4 * _NOISE * self.unit)
        return mean, np.diag(deviations**2)

    def features(self, points: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n, columns) for (n, d) rungs: each knob's curve at its rung, one-hot options, and a constant 1."""
        columns = []
        for i, curve in self._curves:
            if i in self._lattice.unordered:
                columns += [curve[option] * (points[:, i] == option) for option in range(1, len(curve))]
            else:
                columns.append(curve[points[:, i]])
        return np.stack([*columns, np.ones(len(points))], axis=1)

    def loss(self, points: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the losses (n,) predicted at (n, d) rungs relative to the uncut network, in units of the objective."""
        return np.asarray(self.features(points)[:, :-1] @ self._mean[:-1])

    def predict(self, points: NDArray[np.int64]) -> Prediction:
        """Return the losses at (n, d) rungs with the uncertainty of the curves' scales."""
        features = self.features(points)
        features[:, -1] = 0.0  # all points have the same offset, so it does not affect their order
        variance = np.einsum("nc,ck,nk->n", features, self._covariance, features)
        return Prediction(self.loss(points), np.sqrt(np.maximum(variance, 0.0)))

    def fit(self, points: Sequence[Point], utilities: Sequence[float]) -> Losses:
        """Return the posterior after these evaluations, computed from the prior; earlier fits do not matter."""
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
        # If a cut seems to raise the score, that is noise: assume that it loses a little, so that ties go to the
        # smaller cut.
        fitted._mean[:-1] = np.maximum(fitted._mean[:-1], 0.05 * mean[:-1])
        fitted._covariance = posterior
        return fitted


def _common_scale(totals: NDArray[np.float64], losses: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return the least-squares scale of losses = scale * totals, pulled towards 1 by one typical observation."""
    pull = float(np.mean(weights * totals**2)) or 1.0
    scale = (pull + float(weights @ (totals * losses))) / (pull + float(weights @ totals**2))
    return max(scale, 0.1)


def _curves(
    problem: Problem, lattice: Lattice, uncut: float | None, unit: float
) -> list[tuple[int, NDArray[np.float64]]]:
    """Return (knob, loss at each rung) pairs; the loss is 0 at the top. Ordered knobs use the statistic that most of
    them have.
    """
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
    for i in lattice.unordered:  # an option that lowers precision is expected to lose about as much as the noise
        found[i] = np.append(0.0, np.full(lattice.counts[i] - 1, _NOISE * unit))
    return sorted(found.items())


def _statistic(kind: str, rungs: Rungs, problem: Problem, uncut: float | None) -> NDArray[np.float64] | None:
    """Return one knob's loss (rungs,) at each rung according to a statistic, 0 at the top; None if the statistic is
    unusable.
    """
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
