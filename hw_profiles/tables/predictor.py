"""KindPredictor: a Gaussian process that predicts the latency of ops of one kind that were not measured. The columns
that describe an op take kernel classes into account.

The process has a Matern-3/2 kernel with one length scale per column, and white noise; it models log latency around a
ridge line (Rasmussen and Williams 2006, 2.7). The columns were chosen on the development machine, with tables in which
most entries had to be predicted. No benchmark supports this choice, because the benchmarks fill their tables.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hw_profiles.errors import ExtraMissing
from hw_profiles.tables.calibration import Array
from hw_profiles.tables.features import Features

if TYPE_CHECKING:
    from hw_profiles.tables.kernel_classes import KernelClasses

# Minimum number of rows of a kind that is needed to predict this kind.
MIN_ROWS = 8
# Maximum number of rows used to fit length scales (the cost grows with the cube of this number), and maximum number of
# rows kept for predictions.
MAX_FIT_ROWS = 250
MAX_ROWS = 1000
# Factor by which the process's standard deviations are multiplied: on the tables of the development machine, the
# process's own intervals contained fewer measurements than intended.
SIGMA_INFLATION = 1.5
# A lower bound for latencies, because logarithms need a value above 0; no kernel call takes less time.
MIN_LATENCY_US = 0.05


def work(features: Features) -> float:
    """Return a number that grows with an op's work: bytes moved plus an eighth of the MACs, as if eight ran at once."""
    return features["io_bytes"] + features["weight_bytes"] + features["macs"] / 8


class KindPredictor:
    """A predictor that is fitted on first use; `predict` returns None if there are fewer than MIN_ROWS rows."""

    def __init__(self, features: Sequence[Features], latencies_us: Sequence[float], classes: KernelClasses) -> None:
        order = np.random.default_rng(0).permutation(len(features))[:MAX_ROWS]
        self._features = [features[index] for index in order]
        self._latencies = np.asarray([latencies_us[index] for index in order], dtype=np.float64)
        self._classes = classes

    def predict(self, features: Sequence[Features]) -> tuple[Array, Array] | None:
        """Return (latencies, standard deviations) in microseconds, each of shape (len(features),).

        Raises ExtraMissing if scikit-learn is not installed.
        """
        if len(self._features) < MIN_ROWS:
            return None
        scaled = self._scaled(columns(features, self._classes))
        process, line = self._fitted
        log_latency, log_sigma = process.predict(scaled, return_std=True)
        latency = np.exp(log_latency + _with_one(scaled) @ line)
        return latency, latency * log_sigma * SIGMA_INFLATION

    def _scaled(self, values: Array) -> Array:
        known = columns(self._features, self._classes)
        spread = known.std(axis=0)
        return np.asarray((values - known.mean(axis=0)) / np.where(spread > 0, spread, 1.0))

    @cached_property
    def _fitted(self) -> tuple[Any, Array]:
        """The process fitted on the residuals, and the coefficients of the ridge line."""
        try:
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.gaussian_process import GaussianProcessRegressor
            from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
        except ImportError as error:
            raise ExtraMissing("the latency predictor", "server") from error
        scaled = self._scaled(columns(self._features, self._classes))
        target = np.log(np.maximum(self._latencies, MIN_LATENCY_US))
        line = _ridge(scaled, target)
        residual = target - _with_one(scaled) @ line
        kernel = ConstantKernel(0.05, (1e-5, 10.0)) * Matern(
            np.full(scaled.shape[1], 2.0), (0.05, 1e3), nu=1.5
        ) + WhiteKernel(1e-4, (1e-6, 1e-1))
        with warnings.catch_warnings():
            # A length scale at its bound only means that the column does not matter.
            warnings.simplefilter("ignore", ConvergenceWarning)
            tuned = GaussianProcessRegressor(kernel, random_state=0)
            tuned.fit(scaled[:MAX_FIT_ROWS], residual[:MAX_FIT_ROWS])
        process = GaussianProcessRegressor(tuned.kernel_, optimizer=None).fit(scaled, residual)
        return process, line


def columns(features: Sequence[Features], classes: KernelClasses) -> Array:
    """Return the process's inputs, shape (ops, 12): logarithms of the sizes that the kernel pays for, and flags for its
    path.
    """
    return np.array([_columns(row, classes) for row in features], dtype=np.float64)


def _columns(row: Features, classes: KernelClasses) -> list[float]:
    dense = row["groups"] == 1 and row["kind"].startswith("conv")
    into, out = row["in_channels"], row["out_channels"]
    paid_in = classes.effective_in(into) if dense else into
    paid_out = classes.effective_out(out) if dense else out
    paid = (paid_in / max(into, 1)) * (paid_out / max(out, 1))
    logs = [paid_in, paid_out, row["height"] * row["width"], row["kernel"], row["stride"], row["groups"]]
    sizes = [row["macs"] * paid, row["io_bytes"], row["weight_bytes"]]
    flags = [
        float(dense and classes.is_slow(into)),
        float(dense and into < classes.in_threshold),
        float(dense and out % classes.out_step == 0),
    ]
    return [float(np.log1p(value)) for value in (*logs, *sizes)] + flags


def _with_one(values: Array) -> Array:
    return np.column_stack([values, np.ones(len(values))])


def _ridge(values: Array, target: Array) -> Array:
    """Fit by least squares, with a small penalty on all coefficients except the constant."""
    design = _with_one(values)
    penalty = np.diag([1e-2 * len(values)] * values.shape[1] + [0.0])
    return np.asarray(np.linalg.solve(design.T @ design + penalty, design.T @ target))
