"""Which network is nearest to limits that none meets."""

from __future__ import annotations

import math

import pytest

from search.problem import Constraint
from search.ranking.nearness import distance, guesses

FAST = Constraint("latency_ms@dev_1", 0.05, "max")
SMALL = Constraint("size_bytes", 1000.0, "max")
RIGHT = Constraint("accuracy", 0.9, "min")
CHANCE = 0.1


def far(latency_ms: float = 0.05, size_bytes: float = 1000.0, accuracy: float = 0.9) -> float:
    metrics = {"latency_ms@dev_1": latency_ms, "size_bytes": size_bytes, "accuracy": accuracy}
    return distance((FAST, SMALL, RIGHT), metrics, "accuracy", CHANCE)


def test_what_meets_every_limit_is_no_way_off() -> None:
    assert far() == 0.0
    assert far(0.01, 10.0, 1.0) == 0.0


def test_twice_the_time_twice_the_size_and_half_the_knowledge_are_alike_and_add_up() -> None:
    assert far(latency_ms=0.1) == pytest.approx(math.log(2))
    assert far(size_bytes=2000.0) == pytest.approx(math.log(2))
    assert far(accuracy=0.5) == pytest.approx(math.log(2))  # of 0.8 beyond chance half is left
    assert far(0.1, 2000.0, 0.5) == pytest.approx(3 * math.log(2))


@pytest.mark.parametrize("accuracy", [0.094, 0.1])
def test_the_uncut_network_is_nearer_than_a_fast_one_that_guesses(accuracy: float) -> None:
    uncut = far(latency_ms=0.12, size_bytes=3000.0)
    assert uncut < far(accuracy=accuracy) == math.inf
    assert uncut < far(accuracy=0.12)


def test_a_little_accuracy_is_worth_less_than_much_time() -> None:
    assert far(accuracy=0.88) < far(latency_ms=0.1)


def test_limits_on_accuracy_below_chance_have_no_knowledge_to_count() -> None:
    lax = Constraint("accuracy", 0.08, "min")
    assert distance((lax,), {"accuracy": 0.04}, "accuracy", CHANCE) == pytest.approx(math.log(2))
    assert distance((Constraint("accuracy", 0.0, "min"),), {"accuracy": 0.0}, "accuracy", CHANCE) == 0.0


@pytest.mark.parametrize(("accuracy", "count", "found"), [(0.094, 500, True), (0.12, 500, True), (0.13, 500, False)])
def test_guessing_is_within_two_standard_errors_of_chance(accuracy: float, count: int, found: bool) -> None:
    assert guesses(accuracy, CHANCE, count) is found
