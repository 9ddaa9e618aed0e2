"""Losses: predict the loss that cuts cause, with a Bayesian linear model over the loss curves of the knobs.

A curve gives the loss of one knob at each rung. It comes from F1 statistics (sensitivity, least-squares error or
importance) or, without statistics, has the convex shape that cuts usually have. Evaluations then scale each curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.problem import Problem
from search.stepping.curves import NOISE, Curve, knob_curves
from search.stepping.lattice import Lattice, Point

_SPREAD = 1.5  # prior standard deviation of a knob's scale relative to the common scale; scales differ tenfold
_LOWEST = 0.05  # least share of a knob's expected scale: a cut that seems to raise the score is taken to be noise
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
        self._curves = knob_curves(problem, lattice, self._uncut, self.unit)
        self._columns = 1 + sum(len(curve) - 1 if i in lattice.unordered else 1 for i, curve in self._curves)
        self._mean, self._covariance = self._prior(1.0)

    @property
    def _curve_count(self) -> int:
        return self._columns - 1

    def _prior(self, scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the prior: equal scales of the curves and, last, the offset of F2 scores from the original's score."""
        mean = np.append(np.full(self._curve_count, scale), 0.0)
        deviations = np.append(np.full(self._curve_count, _SPREAD * scale), 4 * NOISE * self.unit)
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

    @property
    def curves(self) -> list[Curve]:
        """The predicted loss of each knob at each of its rungs."""
        found = {}
        scales = iter(self._mean.tolist())
        for i, curve in self._curves:
            options = i in self._lattice.unordered
            found[i] = curve * (np.array([0.0, *(next(scales) for _ in curve[1:])]) if options else next(scales))
        return [found[i] for i in range(len(self._lattice.rungs))]

    def drawn(self, rng: np.random.Generator) -> Losses:
        """Return a model whose scales are drawn from the uncertainty of this one (Thompson sampling)."""
        made = copy(self)
        scales = rng.multivariate_normal(self._mean, self._covariance, method="eigh", check_valid="ignore")
        made._mean = np.maximum(scales, _LOWEST * np.abs(self._mean))
        return made

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
        weights = 1.0 / (NOISE * self.unit + _MISFIT * np.maximum(losses, 0.0)) ** 2
        mean, covariance = self._prior(_common_scale(features[:, :-1].sum(axis=1), losses, weights))
        precision = np.linalg.inv(covariance)
        posterior = np.asarray(np.linalg.inv(precision + (features.T * weights) @ features), dtype=np.float64)
        evidence = features.T @ (weights * losses)
        fitted._mean = np.asarray(posterior @ (precision @ mean + evidence), dtype=np.float64)
        # If a cut seems to raise the score, that is noise: assume that it loses a little, so that ties go to the
        # smaller cut.
        fitted._mean[:-1] = np.maximum(fitted._mean[:-1], _LOWEST * mean[:-1])
        fitted._covariance = posterior
        return fitted


def _common_scale(totals: NDArray[np.float64], losses: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return the least-squares scale of losses = scale * totals, pulled towards 1 by one typical observation."""
    pull = float(np.mean(weights * totals**2)) or 1.0
    scale = (pull + float(weights @ (totals * losses))) / (pull + float(weights @ totals**2))
    return max(scale, 0.1)
