"""A measured number along one coordinate: a Gaussian process on few, noisy, dearly bought samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LENGTHS = (0.1, 0.15, 0.25, 0.35, 0.5)  # of the whole way from dense to the sparsest
_AMPLITUDES = (1.0, 2.0, 4.0)  # in units of the squashed scale, on which a total collapse is about -5
_LINEAR = 4.0  # standard deviations of the noise within which a difference is hardly squashed


@dataclass(frozen=True, eq=False)
class Curve:
    """(n,) posterior mean and standard deviation, on the scale of `squash`: 0 is the reference."""

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
    """The posterior at the (n,) points `at` in [0, 1], after y was seen at x with this standard deviation.

    Where a network collapses its accuracy falls a hundred times as far as what decides between two samples:
    differences from `reference` are squashed by asinh, which is linear within a few deviations of the noise and
    makes the exponential onset of a collapse a straight line. Matern 5/2; length and amplitude are those of the
    highest likelihood on a small grid, which is the same in every process. `fall`: how far the prior's mean falls on
    the way from 0 to 1, squashed.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    z = np.arcsinh((np.asarray(y) - reference) / (_LINEAR * noise))
    alpha = 1.0 / (_LINEAR * np.cosh(z)) ** 2  # the variance of a squashed number, by its slope
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
