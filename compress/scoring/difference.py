"""Differences between the scores of two networks on the same samples, with 95 % intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compress.scoring.intervals import Z

Scores: TypeAlias = NDArray[np.float64]
"""(n,) in 0..1: how good the output for each sample is; paired differences are computed from these."""


@dataclass(frozen=True)
class Difference:
    """The mean score that a network loses against another on the same samples; positive means lost."""

    mean: float
    low: float
    high: float
    count: int


def mean_interval(values: NDArray[Any]) -> tuple[float, float]:
    """Return the normal 95 % interval of the mean of (n,) values. One value says nothing of its spread: the interval is
    1 to both sides.
    """
    mean = float(values.mean())
    half = Z * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 1.0
    return mean - half, mean + half


def paired(first: Scores, second: Scores) -> Difference:
    """Return what the second loses against the first, sample by sample."""
    lost = first - second
    return Difference(float(lost.mean()), *mean_interval(lost), len(lost))
