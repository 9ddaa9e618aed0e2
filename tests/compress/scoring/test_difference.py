"""Paired differences of scores, against a library."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from compress.scoring.difference import mean_interval, paired


def test_what_is_lost_is_positive_and_paired() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0.2, 1.0, 500)
    second = np.clip(first - rng.normal(0.05, 0.02, 500), 0.0, 1.0)
    lost = first - second
    found = paired(first, second)
    low, high = norm.interval(0.95, lost.mean(), lost.std(ddof=1) / 500**0.5)
    assert (found.mean, found.low, found.high, found.count) == pytest.approx((lost.mean(), low, high, 500), rel=1e-5)
    # An unpaired interval of these two would be many times as wide.
    assert found.high - found.low < (np.std(first) + np.std(second)) / 500**0.5 / 4


def test_one_value_says_nothing_of_its_spread() -> None:
    assert mean_interval(np.array([0.5])) == (-0.5, 1.5)
