"""Bounds: upper limits on a model's true latency, for verdicts that need 97.5 % certainty.

`quiet` and `p50` lie within the range of the timed bursts, so a bootstrap over bursts bounds them. A bootstrap cannot
bound a high percentile, because it never sees anything above the slowest burst. `p95` is therefore bounded by an order
statistic, which holds for any distribution of the bursts: the r-th smallest of n bursts is above the p-quantile with
the probability that a binomial variable (n, p) is below r (David and Nagaraja, Order Statistics, 2003, section 7.1).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InvalidInput
from hw_profiles.timing.protocol import Sample, Statistic, bootstrap_upper, statistic_values

CERTAINTY = 0.975
ROUNDS = 30
ROUNDS_P95 = 120
"""Enough rounds for the second slowest burst to bound p95, so that a single disturbance cannot decide a verdict. With
fewer than 72 rounds, no burst bounds p95.
"""

Array = npt.NDArray[np.float64]


def verdict_rounds(statistic: Statistic) -> int:
    """Return the number of rounds per model that `upper_bound` needs for this statistic."""
    return ROUNDS_P95 if statistic == "p95" else ROUNDS


def upper_bound(sample: Sample, reference: Sample | None, statistic: Statistic) -> float:
    """Return the upper 97.5 % bound of latency(sample) / latency(reference), or of the latency of `sample` in
    microseconds if `reference` is None.

    A ratio of two p95 values is bounded by the quotient of their bounds, each with half the probability of error
    (Bonferroni).

    Raises InvalidInput if too few bursts were timed to bound the statistic.
    """
    if statistic != "p95":
        return bootstrap_upper(sample, reference, statistic, percentile=100.0 * CERTAINTY)
    values, percentile = statistic_values(sample, statistic)
    if reference is None:
        return order_upper(values, percentile / 100.0, CERTAINTY)
    each = 1.0 - (1.0 - CERTAINTY) / 2.0
    below, _ = statistic_values(reference, statistic)
    return order_upper(values, percentile / 100.0, each) / order_lower(below, percentile / 100.0, each)


def order_upper(values: Array, level: float, certainty: float) -> float:
    """Return the smallest of `values` (n,) that is above the quantile `level` of their distribution with `certainty`.

    Raises InvalidInput if not even the largest value is above it.
    """
    below = _binomial_below(len(values), level)
    ranks = np.flatnonzero(below[1:] >= certainty)
    if not len(ranks):
        raise InvalidInput("bursts", len(values), f"must be enough to bound the quantile {level:g} from above")
    return float(np.sort(values)[ranks[0]])


def order_lower(values: Array, level: float, certainty: float) -> float:
    """Return the largest of `values` (n,) that is below the quantile `level` of their distribution with `certainty`.

    Raises InvalidInput if not even the smallest value is below it.
    """
    below = _binomial_below(len(values), level)
    ranks = np.flatnonzero(below[1:] <= 1.0 - certainty)
    # The r-th smallest value is above the quantile with probability below[r]; the rank r counts from 1, positions from
    # 0.
    if not len(ranks):
        raise InvalidInput("bursts", len(values), f"must be enough to bound the quantile {level:g} from below")
    return float(np.sort(values)[ranks[-1]])


def _binomial_below(count: int, share: float) -> Array:
    """Return (count + 1,) probabilities that a binomial variable (count, share) is below r, for r = 0..count."""
    logs = [
        math.lgamma(count + 1)
        - math.lgamma(k + 1)
        - math.lgamma(count - k + 1)
        + k * math.log(share)
        + (count - k) * math.log1p(-share)
        for k in range(count + 1)
    ]
    return np.concatenate([[0.0], np.cumsum(np.exp(logs))[:-1]])
