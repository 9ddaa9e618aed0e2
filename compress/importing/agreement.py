"""Agreement: check that two runs of one network give the same outputs, except for rounding.

Every runtime adds numbers in a different order. In most networks that affects only the last digits. In some networks
(large values that cancel, long chains without a norm, rounding to 8 bits), the outputs of one runtime with and without
its optimiser differ by more than any fixed bound. So the tolerance is a floor by dtype or, if larger, a few times the
measured rounding noise, up to a bound that any wrong reading of a network exceeds.

This file imports only numpy, because `compress/export.py` loads it where Netlathe is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOOR = {"float32": 1e-4, "float16": 2e-2, "float64": 1e-6}
# A missing Relu, a wrong epsilon of a norm or a wrong axis changes an output by more than this.
CEILING = {"float32": 1e-2, "float16": 1e-1, "float64": 1e-4}
FACTOR = 4.0
"""Multiplier for the measured noise: both runs can be off by this much, and the measured noise may be small by chance.
"""


def silent() -> float:
    """Return 0, the noise of a network without rounding noise."""
    return 0.0


@dataclass(frozen=True)
class Agreement:
    """Difference of two arrays and the tolerance, both as a share of the reference's largest magnitude."""

    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """True if the arrays agree. They never agree if the difference is NaN."""
        return self.difference <= self.tolerance


def judge(
    value: NDArray[Any],
    reference: NDArray[Any],
    noise: Callable[[], float] = silent,
    *,
    step: float = 0.0,
    dtype: str = "",
) -> Agreement:
    """Compare an array with a reference.

    Args:
        noise: returns the difference that rounding alone causes; called only if the difference exceeds the floor.
        step: the size of one level if the numbers are quantised, in the unit of the numbers; else 0. Two runs may
            round to neighbouring levels.
        dtype: the type in which the numbers were computed, if it is not the type of the reference.
    """
    difference = relative_difference(value, reference)
    dtype = dtype or str(reference.dtype)
    floor = max(FLOOR.get(dtype, 0.0), 1.001 * step / _scale(reference) if step else 0.0)
    if difference <= floor:
        return Agreement(difference, floor)
    return Agreement(difference, max(floor, min(FACTOR * noise(), CEILING.get(dtype, 0.0))))


def relative_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the largest difference, divided by the scale of `b` (its largest magnitude, at least 1e-6).

    If a number is NaN or the shapes differ, the result is inf.
    """
    if a.shape != b.shape:
        return float("inf")
    if a.size == 0:
        return 0.0
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a64).all() and np.isfinite(b64).all()):
        return 0.0 if np.array_equal(a64, b64, equal_nan=True) else float("inf")
    return float(np.abs(a64 - b64).max() / _scale(b64))


def _scale(values: NDArray[Any]) -> float:
    return max(float(np.abs(values.astype(np.float64)).max(initial=0.0)), 1e-6)
