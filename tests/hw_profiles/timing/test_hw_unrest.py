"""How far a statistic lies over the quiet latency: on a machine at rest, and on one that others work on."""

from __future__ import annotations

import numpy as np
import pytest

from hw_profiles.errors import InvalidInput
from hw_profiles.timing.protocol import Sample, Statistic, statistic_us
from hw_profiles.timing.unrest import NARROW, Unrest, unrest

RESTING: dict[Statistic, float] = {"quiet": 1.0, "p50": 1.03, "p95": 1.03}


def session(networks: int, disturbed: float, slow: float = 3.0, bursts: int = 40) -> list[Sample]:
    """Networks from 50 us on, whose runs take up to 2 % more than the fastest and 3 % in the median; a share of the
    bursts is slower by a factor.
    """
    rng = np.random.default_rng(networks)
    found = []
    for number in range(networks):
        minima = 50.0 * (1 + number) * rng.uniform(1.0, 1.005, bursts)
        factor = np.where(rng.permutation(bursts) < disturbed * bursts, slow, 1.0)
        found.append(Sample(f"n{number}", tuple(factor * minima), tuple(1.03 * factor * minima)))
    return found


@pytest.mark.parametrize("statistic", ["quiet", "p50", "p95"])
def test_at_rest_all_ends_agree_and_nothing_is_added_to_a_limit(statistic: Statistic) -> None:
    found = unrest(session(8, disturbed=0.0), statistic)
    assert found.value == pytest.approx(RESTING[statistic], rel=0.01)
    assert found.high / found.low < 1.0 + NARROW
    assert found.leniency == 1.0


@pytest.mark.parametrize("disturbed", [0.2, 0.6, 0.7])
def test_others_work_does_not_move_the_value_of_p50(disturbed: float) -> None:
    samples = session(8, disturbed)
    found = unrest(samples, "p50")
    assert found.value == pytest.approx(RESTING["p50"], rel=0.01)
    assert found.high == pytest.approx(float(np.median([_momentary(sample) for sample in samples])))


def _momentary(sample: Sample) -> float:
    return statistic_us(sample, "p50") / statistic_us(sample, "quiet")


@pytest.mark.parametrize("statistic", ["p50", "p95"])
def test_where_rest_is_rare_the_limit_is_taken_at_its_generous_end(statistic: Statistic) -> None:
    found = unrest(session(8, disturbed=0.85), statistic)
    assert found.value > 2.5
    assert found.value / found.leniency == pytest.approx(RESTING["p50"], rel=0.01)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InvalidInput, match="samples: must be at least one"):
        unrest([], "p50")
    with pytest.raises(InvalidInput, match="in this order"):
        Unrest(1.2, 1.1, 1.3)
