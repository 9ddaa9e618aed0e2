"""Difference: the score that one network loses against another on the same samples, with its 95 % interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compress.scoring.intervals import Z

Scores: TypeAlias = NDArray[np.float64]
"""Scores (n,) in 0..1, one for each sample's output; paired differences are computed from them."""


@dataclass(frozen=True)
class Difference:
    """Mean score that a network loses against another on the same samples; a positive number is a loss."""

    mean: float
    low: float
    high: float
    count: int


def mean_interval(values: NDArray[Any]) -> tuple[float, float]:
    """Return the normal 95 % interval of the mean of (n,) values; for a single value, the value minus and plus one."""
    mean = float(values.mean())
    half = Z * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 1.0
    return mean - half, mean + half


def paired(first: Scores, second: Scores) -> Difference:
    """Return the score that the second network loses against the first, from differences sample by sample."""
    lost = first - second
    return Difference(float(lost.mean()), *mean_interval(lost), len(lost))
