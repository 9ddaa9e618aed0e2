"""Calibration: turns a sum of block latencies into the latency of a network, with an interval.

Latency = a + b * sum. `a` is the cost of a call, `b` a factor for the extra cost of blocks in a network (cold caches).
Both are fitted to networks of the current search space that were measured whole. The interval is split-conformal on
leave-one-out errors (Vovk et al. 2005; the leave-one-out form: Barber et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InvalidInput

Array = npt.NDArray[np.float64]

# Standard deviation of the prior that draws b towards 1; it matters only if there are few networks. It was chosen wider
# than needed: in the rows of benchmarks/predictor_accuracy.py, the b of `calibration` is within a few percent of 1.
B_SPREAD = 0.15
# Relative noise of a whole network's quiet latency between sessions, after anchoring. It was chosen on the development
# machine; in the rows of benchmarks/predictor_accuracy.py, even the noise and the prediction errors together are
# smaller than this (docs/benchmarks.md).
NETWORK_NOISE = 0.017
# Relative error expected before any network was measured; it weighs as much as PRIOR_NETWORKS networks.
PRIOR_RESIDUAL = 0.05
PRIOR_NETWORKS = 2
LEVEL = 0.95
# Drift between two sessions that anchors do not remove. The errors behind an interval come from one session and do not
# include it, so it is added to the interval afterwards.
SESSION_NOISE = 0.01


@dataclass(frozen=True)
class Calibration:
    """The line `a_us + b * sum`. `residual` is the relative error (root mean square, leave-one-out). `quantile` is the
    interval's half width in standard deviations; the interval holds at `level`. `loo_mape` is the leave-one-network-out
    mean absolute relative error, or None with fewer than 3 networks.

    The default is the prior before any network was measured: a = 0, b = 1 and +-30 %, because the overhead of a call
    (tens of microseconds) and the effect of cold caches are still unknown.
    """

    a_us: float = 0.0
    b: float = 1.0
    residual: float = 0.15
    quantile: float = 2.0
    networks: int = 0
    loo_mape: float | None = None

    def __post_init__(self) -> None:
        if not self.b > 0:
            raise InvalidInput("b", self.b, "must be above 0")

    @property
    def level(self) -> float:
        """The confidence of the interval. n leave-one-out errors support a confidence of at most n / (n + 1), so it is
        95 % from 19 networks on, and 0 before any network was measured.
        """
        return min(LEVEL, self.networks / (self.networks + 1))

    def latency_us(self, sum_us: Array) -> Array:
        """Return the latencies of networks, given their sums of block latencies in an array of any shape."""
        return np.asarray(self.a_us + self.b * sum_us)

    def sigma_us(self, sum_us: Array, block_sigma_us: Array) -> Array:
        """Return the standard deviations of `latency_us`, given the standard deviations of the sums."""
        return np.asarray(np.hypot(self.b * block_sigma_us, self.residual * self.latency_us(sum_us)))

    def half_width_us(self, sum_us: Array, block_sigma_us: Array) -> Array:
        """Return the half width of the interval around `latency_us` that contains a later session's measurement with
        confidence `level`.
        """
        session_us = 1.96 * SESSION_NOISE * self.latency_us(sum_us)
        return np.asarray(np.hypot(self.quantile * self.sigma_us(sum_us, block_sigma_us), session_us))

    def scaled(self, factor: float) -> Calibration:
        """Return the calibration for another statistic, which is `factor` times the quiet latency; relative errors stay
        the same.
        """
        return replace(self, a_us=factor * self.a_us, b=factor * self.b)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes an equal calibration."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Read the output of `to_json`. Raises InvalidInput on unknown or wrong fields."""
        try:
            return cls(**data)
        except TypeError as error:
            raise InvalidInput("calibration", dict(data), str(error)) from error


def calibrate(sums_us: Sequence[float], block_sigmas_us: Sequence[float], measured_us: Sequence[float]) -> Calibration:
    """Fit a calibration to networks, given their sums of block latencies, the standard deviations of the sums, and
    their measured latencies.

    Errors are relative to the measured latency. Any number of networks is accepted: without networks, the result is the
    prior; with a single network, only `a` changes. Raises InvalidInput on unequal lengths or on latencies that are not
    above 0.
    """
    sums, sigmas, measured = (
        np.asarray(values, dtype=np.float64) for values in (sums_us, block_sigmas_us, measured_us)
    )
    if not len(sums) == len(sigmas) == len(measured):
        raise InvalidInput("measured_us", len(measured), f"must have as many values as sums, {len(sums)}")
    if not (np.isfinite(sums).all() and np.isfinite(measured).all() and (measured > 0).all()):
        raise InvalidInput("measured_us", measured.tolist(), "must be finite and above 0")
    count = len(sums)
    if count == 0:
        return Calibration()
    a_us, b = _line(sums, measured)
    errors = _leave_one_out(sums, measured)
    prior = PRIOR_NETWORKS * PRIOR_RESIDUAL**2
    residual = math.sqrt((prior + float(np.sum(errors**2))) / (PRIOR_NETWORKS + count))
    scores = np.abs(errors) / np.hypot(b * sigmas / measured, residual)
    return Calibration(
        a_us=a_us,
        b=b,
        residual=residual,
        quantile=_conformal(scores),
        networks=count,
        loo_mape=float(np.mean(np.abs(errors))) if count >= 3 else None,
    )


def _line(sums: Array, measured: Array) -> tuple[float, float]:
    """Return (a, b) by least squares on relative errors, with b drawn towards 1, from the exact normal equations."""
    weight = 1.0 / (NETWORK_NOISE * measured)
    design = np.vstack([np.column_stack([weight, weight * sums]), [0.0, 1.0 / B_SPREAD]])
    target = np.append(weight * measured, 1.0 / B_SPREAD)
    a_us, b = np.linalg.lstsq(design, target, rcond=None)[0]
    return float(a_us), max(float(b), 0.1)


def _leave_one_out(sums: Array, measured: Array) -> Array:
    """Return the relative error of each network when it is predicted from the other networks; zero if there is only one
    network.
    """
    if len(sums) < 2:
        return np.zeros(len(sums))
    errors = []
    for index in range(len(sums)):
        others = np.arange(len(sums)) != index
        a_us, b = _line(sums[others], measured[others])
        errors.append((a_us + b * sums[index]) / measured[index] - 1.0)
    return np.asarray(errors)


def _conformal(scores: Array) -> float:
    """Return the score that covers LEVEL.

    With fewer than 19 networks, no score covers LEVEL. The result is then the largest score or the normal
    distribution's 1.96, whichever is larger; `Calibration.level` says how far it can be trusted.
    """
    rank = math.ceil((len(scores) + 1) * LEVEL)
    if rank > len(scores):
        return max(1.96, float(scores.max()))
    return float(np.sort(scores)[rank - 1])
