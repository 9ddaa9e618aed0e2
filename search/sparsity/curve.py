"""Curve: a Gaussian process for a number along one coordinate, fitted to a few noisy and expensive samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LENGTHS = (0.1, 0.15, 0.25, 0.35, 0.5)  # as shares of the way from the dense to the sparsest network
_AMPLITUDES = (1.0, 2.0, 4.0)  # on the squashed scale, on which a total collapse is about -5
_LINEAR = 4.0  # a difference within this many standard deviations of the noise is hardly squashed


@dataclass(frozen=True, eq=False)
class Curve:
    """Posterior mean and standard deviation, each (n,), squashed so that the reference is 0."""

    mean: NDArray[np.float64]
    sigma: NDArray[np.float64]


def fit(
    x: Sequence[float],
    y: Sequence[float],
    noise: float,
    reference: float,
    at: NDArray[np.float64],
    fall: float = 0.0,
) -> Curve:
    """Return the posterior at the points `at` (n,) in [0, 1], given y at x with the standard deviation `noise`.

    When a network collapses, its score falls by a hundred times as much as useful samples differ. So differences from
    `reference` are squashed by asinh, which is linear within a few standard deviations of the noise and makes the
    exponential onset of a collapse a straight line. The kernel is Matern 5/2. Its length and amplitude are the most
    likely pair on a small fixed grid, so that every process finds the same pair. `fall` is how far the prior's mean
    falls from point 0 to point 1, squashed.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    z = np.arcsinh((np.asarray(y) - reference) / (_LINEAR * noise))
    alpha = 1.0 / (_LINEAR * np.cosh(z)) ** 2  # the variance of a squashed number, from the slope of asinh
    seen = np.asarray(x)[:, None]
    processes = [
        GaussianProcessRegressor(
            ConstantKernel(amplitude**2, "fixed") * Matern(length, "fixed", nu=2.5), alpha=alpha, optimizer=None
        ).fit(seen, z + fall * seen[:, 0])
        for amplitude in _AMPLITUDES
        for length in _LENGTHS
    ]
    likeliest = max(processes, key=lambda process: float(process.log_marginal_likelihood_value_))
    mean, sigma = likeliest.predict(at[:, None], return_std=True)
    return Curve(mean - fall * at, sigma)
