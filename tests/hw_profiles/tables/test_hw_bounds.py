"""Bounds of verdicts: how often they lie above the truth, by simulation, and where they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from hw_profiles.errors import InvalidInput
from hw_profiles.tables.verdict_bounds import order_lower, order_upper, upper_bound, verdict_rounds
from hw_profiles.timing.protocol import Sample, Statistic, bootstrap_upper, statistic_us

SIMULATIONS = 400
QUANTILES: dict[Statistic, float] = {"quiet": 0.05, "p50": 0.5, "p95": 0.95}


def burst_sample(rounds: int, seed: int, scale: float = 1.0) -> Sample:
    """Bursts of a disturbed machine: exponential above 100 microseconds, medians as far off as minima."""
    drawn = scale * (100.0 + 10.0 * np.random.default_rng(seed).exponential(size=rounds))
    return Sample("one", tuple(drawn), tuple(drawn))


def truth_us(statistic: Statistic) -> float:
    return float(100.0 - 10.0 * np.log1p(-QUANTILES[statistic]))


@pytest.mark.parametrize("statistic", ["quiet", "p50", "p95"])
def test_the_bound_lies_above_the_truth_as_often_as_it_says(statistic: Statistic) -> None:
    rounds = verdict_rounds(statistic)
    above = [
        upper_bound(burst_sample(rounds, seed), None, statistic) >= truth_us(statistic) for seed in range(SIMULATIONS)
    ]
    # 97.5 %; three standard errors of 400 simulations and the bootstrap's own error are allowed for.
    assert np.mean(above) >= 0.945


def test_of_ratios_too() -> None:
    rounds = verdict_rounds("p95")
    above = [
        upper_bound(burst_sample(rounds, 2 * seed, 0.7), burst_sample(rounds, 2 * seed + 1), "p95") >= 0.7
        for seed in range(SIMULATIONS)
    ]
    assert np.mean(above) >= 0.975


def test_a_bootstrap_of_thirty_rounds_would_not_do_for_p95() -> None:
    above = [
        bootstrap_upper(burst_sample(30, seed), None, "p95", resamples=400) >= truth_us("p95") for seed in range(200)
    ]
    assert np.mean(above) < 0.9


def test_p95_is_bounded_by_the_second_slowest_burst() -> None:
    sample = burst_sample(verdict_rounds("p95"), 0)
    assert upper_bound(sample, None, "p95") == sorted(sample.medians_us)[-2]
    assert upper_bound(sample, None, "p95") > statistic_us(sample, "p95")


def test_too_few_bursts_bound_nothing() -> None:
    values = np.arange(1.0, 72.0)
    with pytest.raises(InvalidInput, match=r"bursts: must be enough to bound the quantile 0\.95 from above"):
        order_upper(values, 0.95, 0.975)
    assert order_upper(np.append(values, 72.0), 0.95, 0.975) == 72.0
    with pytest.raises(InvalidInput, match="from below"):
        order_lower(values[:10], 0.05, 0.975)
    assert order_lower(values, 0.5, 0.975) == 27.0
