"""Agreement: whether two runs of one network say the same, judged by what rounding alone does to it.

Every runtime adds in an order of its own. In most networks that is lost in the last digits; in some (large values
that cancel, long chains without a norm, rounding to 8 bits) one runtime with and without its optimiser differs from
itself by more than any fixed bound. So what is allowed is a floor by dtype or, where that is more, a few times the
noise that rounding is seen to make, up to a bound that no wrong reading of a network stays under.

Imports numpy alone: `compress/export.py` reads this file where nothing of ours is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOOR = {"float32": 1e-4, "float16": 2e-2, "float64": 1e-6}
# A Relu left out, a norm's epsilon of another size or an axis mistaken moves an output by more than this.
CEILING = {"float32": 1e-2, "float16": 1e-1, "float64": 1e-4}
FACTOR = 4.0
"""Two runs that err by the noise each, and a sample of it that was a lucky one."""


def silent() -> float:
    """The noise where none is expected."""
    return 0.0


@dataclass(frozen=True)
class Agreement:
    """How far two arrays lie apart and how far they may: both as a share of the reference's largest magnitude."""

    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether they agree. A difference that is no number never does."""
        return self.difference <= self.tolerance


def judge(
    value: NDArray[Any], reference: NDArray[Any], noise: Callable[[], float] = silent, *, step: float = 0.0
) -> Agreement:
    """Hold one array against another.

    Args:
        noise: the difference that rounding alone makes; asked for only if the floor of the dtype is not enough.
        step: what one level is worth where the numbers are quantised, in the unit of the numbers; 0 where they
            are not. Two runs may round to levels beside each other.
    """
    difference = relative_difference(value, reference)
    dtype = str(reference.dtype)
    floor = max(FLOOR.get(dtype, 0.0), 1.001 * step / _scale(reference) if step else 0.0)
    if difference <= floor:
        return Agreement(difference, floor)
    return Agreement(difference, max(floor, min(FACTOR * noise(), CEILING.get(dtype, 0.0))))


def relative_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Largest absolute difference over the scale (largest magnitude, at least 1e-6) of `b`; inf for NaN or shape."""
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
