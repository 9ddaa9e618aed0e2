"""Calibration: from a sum of block latencies to the latency of a network, with an interval.

Latency = a + b * sum. `a` holds the cost of a call, `b` what blocks cost more in a network than alone (cold
caches). Both are fitted on networks of the space at hand that were measured whole. The interval is
split-conformal on leave-one-out errors (Vovk et al. 2005; the leave-one-out form: Barber et al. 2021).
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

# b is drawn towards 1 with this standard deviation, which decides only while there are few networks. A choice, wider
# than needed: `calibration` in the rows of benchmarks/predictor_accuracy.py has a b within some percent of 1.
B_SPREAD = 0.15
# Relative noise of one whole network's quiet latency between sessions, after the anchor. A choice, made on the
# machine this was written on: in the rows of benchmarks/predictor_accuracy.py noise and errors of predictions together
# spread by less (docs/benchmarks.md).
NETWORK_NOISE = 0.017
# Relative error to expect before any network was measured; weighs as much as PRIOR_NETWORKS networks do.
PRIOR_RESIDUAL = 0.05
PRIOR_NETWORKS = 2
LEVEL = 0.95
# What anchors leave of the drift between two sessions. The errors that an interval is drawn from come from one
# session and do not know of it, so that it is added to the interval afterwards.
SESSION_NOISE = 0.01


@dataclass(frozen=True)
class Calibration:
    """`a_us + b * sum`. `residual`: relative error (root mean square, leave-one-out); `quantile`: how many
    standard deviations the interval takes (`level` says how sure it is); `loo_mape`: leave-one-network-out mean
    absolute relative error, None with fewer than 3 networks.

    The default is the prior used before any network was measured: a = 0, b = 1 and +-30 %, because a call's
    overhead (tens of microseconds) and cold caches are not known yet.
    """

    a_us: float = 0.0
    b: float = 1.0
    residual: float = 0.15
    quantile: float = 2.0
    networks: int = 0
    loo_mape: float | None = None

    def __post_init__(self) -> None:
        if not self.b > 0:
            raise InvalidInput("b", self.b, "above 0")

    @property
    def level(self) -> float:
        """How sure the interval is. n leave-one-out errors cannot vouch for more than n / (n + 1), so that it is 95 %
        from 19 networks on; before any was measured nothing vouches for it: 0.
        """
        return min(LEVEL, self.networks / (self.networks + 1))

    def latency_us(self, sum_us: Array) -> Array:
        """Network latencies from sums of block latencies, any shape."""
        return np.asarray(self.a_us + self.b * sum_us)

    def sigma_us(self, sum_us: Array, block_sigma_us: Array) -> Array:
        """Standard deviations of `latency_us`, given those of the sums."""
        return np.asarray(np.hypot(self.b * block_sigma_us, self.residual * self.latency_us(sum_us)))

    def half_width_us(self, sum_us: Array, block_sigma_us: Array) -> Array:
        """Half of the interval, which holds at `level`, around `latency_us`, for a measurement in another session."""
        session_us = 1.96 * SESSION_NOISE * self.latency_us(sum_us)
        return np.asarray(np.hypot(self.quantile * self.sigma_us(sum_us, block_sigma_us), session_us))

    def scaled(self, factor: float) -> Calibration:
        """The line of another statistic, `factor` times the quiet latency; relative errors stay."""
        return replace(self, a_us=factor * self.a_us, b=factor * self.b)

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes an equal calibration."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Raises InvalidInput on unknown or wrong fields."""
        try:
            return cls(**data)
        except TypeError as error:
            raise InvalidInput("calibration", dict(data), str(error)) from error


def calibrate(sums_us: Sequence[float], block_sigmas_us: Sequence[float], measured_us: Sequence[float]) -> Calibration:
    """The calibration on networks with these sums of blocks (with standard deviations) and measured latencies.

    Errors count relative to the measured latency. Any number of networks will do: with none it is the prior,
    with one `a` alone moves. Raises InvalidInput on unequal lengths or on latencies that are not above 0.
    """
    sums, sigmas, measured = (
        np.asarray(values, dtype=np.float64) for values in (sums_us, block_sigmas_us, measured_us)
    )
    if not len(sums) == len(sigmas) == len(measured):
        raise InvalidInput("measured_us", len(measured), f"as many as sums, {len(sums)}")
    if not (np.isfinite(sums).all() and np.isfinite(measured).all() and (measured > 0).all()):
        raise InvalidInput("measured_us", measured.tolist(), "finite and above 0")
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
    """(a, b): least squares on relative errors with b drawn towards 1; exact normal equations."""
    weight = 1.0 / (NETWORK_NOISE * measured)
    design = np.vstack([np.column_stack([weight, weight * sums]), [0.0, 1.0 / B_SPREAD]])
    target = np.append(weight * measured, 1.0 / B_SPREAD)
    a_us, b = np.linalg.lstsq(design, target, rcond=None)[0]
    return float(a_us), max(float(b), 0.1)


def _leave_one_out(sums: Array, measured: Array) -> Array:
    """Relative error of each network predicted from the others; zeros for a single network."""
    if len(sums) < 2:
        return np.zeros(len(sums))
    errors = []
    for index in range(len(sums)):
        others = np.arange(len(sums)) != index
        a_us, b = _line(sums[others], measured[others])
        errors.append((a_us + b * sums[index]) / measured[index] - 1.0)
    return np.asarray(errors)


def _conformal(scores: Array) -> float:
    """The score that covers LEVEL; below 19 networks, where no score can, the largest, at least the normal law's
    1.96: what that is worth is `Calibration.level`.
    """
    rank = math.ceil((len(scores) + 1) * LEVEL)
    if rank > len(scores):
        return max(1.96, float(scores.max()))
    return float(np.sort(scores)[rank - 1])
