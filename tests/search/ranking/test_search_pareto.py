from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.candidate import Candidate
from search.errors import InvalidInput
from search.evaluation import Evaluation, Status
from search.problem import Constraint, Goal, Objective, Problem
from search.ranking.pareto import best, dominated, front, hypervolume, nearest
from search.space import Int, Space

GOALS: tuple[Goal, Goal] = ("max", "min")


def _slow(costs: Any) -> list[bool]:
    return [any((q <= p).all() and (q < p).any() for q in costs) for p in costs]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_dominated_in_two_columns_agrees_with_the_definition(points: list[tuple[int, int]]) -> None:
    array = np.array(points, dtype=float).reshape(-1, 2)
    assert dominated(array, GOALS).tolist() == _slow(array * np.array([-1.0, 1.0]))


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=20))
def test_dominated_in_three_columns_agrees_with_the_definition(points: list[tuple[int, ...]]) -> None:
    array = np.array(points, dtype=float).reshape(-1, 3)
    assert dominated(array, ("min", "min", "min")).tolist() == _slow(array)


def test_equal_points_stay_on_the_front() -> None:
    points = np.array([[0.9, 5.0], [0.8, 4.0], [0.9, 5.0], [0.8, 5.0]])
    assert front(points, GOALS).tolist() == [0, 1, 2]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12))
def test_hypervolume_counts_the_cells_that_are_dominated(points: list[tuple[int, int]]) -> None:
    cells = sum(any(x <= i and y <= j for x, y in points) for i in range(7) for j in range(7))
    array = np.array(points, dtype=float).reshape(-1, 2)
    assert hypervolume(array, ("min", "min"), (7.0, 7.0)) == cells


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one column per goal"):
        front(np.zeros((2, 3)), GOALS)
    with pytest.raises(InvalidInput, match="finite"):
        front(np.array([[np.nan, 1.0]]), GOALS)
    with pytest.raises(InvalidInput, match="two columns"):
        hypervolume(np.zeros((1, 3)), ("min", "min", "min"), (1.0, 1.0, 1.0))  # type: ignore[arg-type]  # tested


PROBLEM = Problem(
    Space((Int("x", 0, 9),)),
    (Objective("accuracy", "max"),),
    (Constraint("macs", 10.0, "max"),),
    lambda batch: {"macs": np.zeros(len(batch))},
)


def _evaluation(name: str, status: Status = Status.COMPLETED, **metrics: float) -> Evaluation:
    keyed = {key.replace("__", "@"): value for key, value in metrics.items()}
    return Evaluation(Candidate(name, {"x": 1}), status, keyed, reason="as told")


def test_best_is_feasible_then_accurate_then_fast() -> None:
    evaluations = [
        _evaluation("over", accuracy=0.99, macs=11),
        _evaluation("slow", accuracy=0.9, macs=10, latency_ms__d=3.0),
        _evaluation("fast", accuracy=0.9, macs=10, latency_ms__d=2.0),
        _evaluation("worse", accuracy=0.8, macs=1, latency_ms__d=1.0),
        _evaluation("stopped", Status.STOPPED, accuracy=1.0, macs=1),
        _evaluation("unmeasured", accuracy=1.0),
    ]
    for order in (evaluations, evaluations[::-1]):
        found = best(order, PROBLEM)
        assert found is not None
        assert found.candidate.id == "fast"


def test_nothing_feasible_has_no_best_but_a_nearest() -> None:
    evaluations = [_evaluation("far", accuracy=0.9, macs=30), _evaluation("near", accuracy=0.1, macs=11)]
    assert best(evaluations, PROBLEM) is None
    found = nearest(evaluations, PROBLEM)
    assert found is not None
    assert found.candidate.id == "near"
    assert nearest([], PROBLEM) is None
