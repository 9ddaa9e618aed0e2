from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import InvalidInput
from search.problem import Constraint, Objective, Problem, Term, Terms
from search.space import Choice, Space

SPACE = Space((Choice("a", (1, 2), True), Choice("b", (1, 2, 4), True)))
PAIR = Term(("b", "a"), np.arange(6.0).reshape(3, 2))
TERMS = Terms(("a", "b"), 0.5, 2.0, (Term(("a",), np.array([1.0, 3.0])), PAIR, PAIR), fixed_ms=10.0)


def test_terms_by_hand() -> None:
    levels = np.array([[0, 0], [1, 2]])
    # 0.5 + 2 * (10 + T_a + 2 * T_ba)
    assert TERMS.latency_ms(levels).tolist() == [0.5 + 2 * (10 + 1 + 0), 0.5 + 2 * (10 + 3 + 2 * 5)]
    assert TERMS.latency_ms(np.empty((0, 2), dtype=np.int64)).shape == (0,)


@given(seed=st.integers(0, 1000))
def test_terms_agree_with_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, 5)
    names = tuple("abcde")
    terms = []
    for _ in range(8):
        chosen = rng.choice(5, size=rng.integers(1, 4), replace=False)
        terms.append(Term(tuple(names[i] for i in chosen), rng.random(counts[chosen])))
    made = Terms(names, 0.1, 1.5, tuple(terms), 0.2)
    levels = np.stack([rng.integers(0, count, 7) for count in counts], axis=1)
    for row, latency_ms in zip(levels, made.latency_ms(levels), strict=True):
        looked_up = (t.table_ms[tuple(row[names.index(n)] for n in t.knobs)] for t in terms)
        assert latency_ms == pytest.approx(0.1 + 1.5 * (0.2 + sum(looked_up)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Term((), np.array(1.0)), "distinct knobs"),
        (lambda: Term(("a", "a"), np.ones((2, 2))), "distinct knobs"),
        (lambda: Term(("a",), np.ones((2, 2))), "one axis"),
        (lambda: Term(("a",), np.array([np.nan])), "finite"),
        (lambda: Terms(("a",), 0.0, 1.0, (PAIR,)), "no such knob"),
        (lambda: Terms(("a", "b"), 0.0, 1.0, (PAIR, Term(("a",), np.ones(3)))), "2 levels here and 3 there"),
        (lambda: TERMS.latency_ms(np.zeros((4, 3), dtype=np.int64)), r"\(n, 2\)"),
        (lambda: Constraint("m", float("inf"), "max"), "finite"),
        (lambda: Constraint("m", 1.0, "most"), "'max' or 'min'"),  # type: ignore[arg-type]  # what is tested
        (lambda: Objective("m", "most"), "'min' or 'max'"),  # type: ignore[arg-type]  # what is tested
        (lambda: Problem(SPACE, (), (), lambda batch: {}), "at least one objective"),
        (lambda: _problem(evaluations=0), "at least 1"),
        (lambda: _problem(images=0), "at least 1"),
        (lambda: _problem(level=90.0), "a score in"),
        (lambda: _problem(terms={"x": Terms(("b", "a"), 0.0, 1.0, ())}), "in order"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


def _problem(**changes: Any) -> Problem:
    constraints = (Constraint("latency_ms", 4.0, "max"), Constraint("accuracy", 0.8, "min"))

    def estimate(batch: Any) -> dict[str, Any]:
        return {"latency_ms": np.array([4.0 * v["a"] for v in batch]), "accuracy": np.full(len(batch), 0.6)}

    return Problem(SPACE, (Objective("accuracy", "max"),), constraints, estimate, **changes)


def test_violations_are_relative_and_summed() -> None:
    problem = _problem()
    assert problem.violation({"latency_ms": 5.0, "accuracy": 0.9}) == pytest.approx(0.25)
    assert problem.violation({"latency_ms": 5.0, "accuracy": 0.6}) == pytest.approx(0.5)
    assert problem.feasible({"latency_ms": 4.0, "accuracy": 0.8})
    assert problem.violations([{"a": 1, "b": 1}, {"a": 2, "b": 1}]) == pytest.approx([0.25, 1.25])
    assert problem.violations([]).shape == (0,)
    assert Constraint("delta", 0.0, "max").violation({"delta": 3.0}) == 3.0


def test_a_missing_metric_is_named() -> None:
    with pytest.raises(InvalidInput, match="accuracy is missing"):
        _problem().violation({"latency_ms": 5.0})
    with pytest.raises(InvalidInput, match="macs is missing"):
        Objective("macs", "min").utility({})
    unestimated = Problem(SPACE, (Objective("accuracy", "max"),), (Constraint("macs", 1.0, "max"),), lambda b: {})
    with pytest.raises(InvalidInput, match="macs is not estimated"):
        unestimated.violations([{"a": 1, "b": 1}])


def test_utility_is_signed_so_that_more_is_better() -> None:
    assert Objective("macs", "min").utility({"macs": 3.0}) == -3.0
    assert Objective("accuracy", "max").utility({"accuracy": 0.9}) == 0.9
