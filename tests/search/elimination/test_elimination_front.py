"""The front of a summed loss and a latency, against enumeration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.elimination.front import Front, front
from search.elimination.levels import kept_levels
from search.errors import InvalidInput
from search.ranking.pareto import dominated
from search.terms import Term, Terms

Losses = Mapping[str, NDArray[np.float64]]


@st.composite
def problems(draw: st.DrawFn, most_knobs: int = 5) -> tuple[Terms, Losses]:
    """Return terms and losses; tables are smooth or staircases, or neither, and some knobs are in no table."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=most_knobs))
    knobs = tuple(f"k{i}" for i in range(len(counts)))
    rounded = draw(st.booleans())
    terms = []
    for _ in range(draw(st.integers(0, 7))):
        on = rng.permutation(len(counts))[: rng.integers(1, min(3, len(counts)) + 1)]
        table = rng.normal(size=[counts[i] for i in on])
        terms.append(Term(tuple(knobs[i] for i in on), np.round(table) if rounded else table))
    losses = {name: rng.exponential(size=count) for name, count in zip(knobs, counts, strict=True)}
    scale = draw(st.sampled_from((1.0, 0.4, -2.0)))
    return Terms(knobs, float(rng.normal()), scale, tuple(terms), float(rng.normal())), losses


def _every(terms: Terms, losses: Losses) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the latency and the loss of every choice of levels."""
    counts = [len(losses[name]) for name in terms.knobs]
    levels = np.indices(counts).reshape(len(counts), -1).T
    loss = np.sum([losses[name][levels[:, i]] for i, name in enumerate(terms.knobs)], axis=0)
    return terms.latency_ms(levels), loss


def _check_attained(found: Front, terms: Terms, losses: Losses) -> None:
    """Check that each point is the latency and the loss of its levels, in order."""
    loss = np.sum([losses[name][found.levels[:, i]] for i, name in enumerate(terms.knobs)], axis=0)
    assert terms.latency_ms(found.levels) == pytest.approx(found.latency_ms)
    assert loss == pytest.approx(found.loss)
    assert (np.diff(found.latency_ms) > 0).all()
    assert (np.diff(found.loss) < 0).all()


def _least_loss(latency_ms: NDArray[np.float64], loss: NDArray[np.float64], budget_ms: float) -> float:
    return float(np.min(loss[latency_ms <= budget_ms + 1e-9], initial=np.inf))


def _found_loss(found: Front, budget_ms: float) -> float:
    index = found.at(budget_ms + 1e-9)
    return np.inf if index is None else float(found.loss[index])


@given(made=problems())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_is_the_whole_front(made: tuple[Terms, Losses]) -> None:
    terms, losses = made
    found = front(terms, losses)
    assert found is not None
    assert found.gap == 0.0
    _check_attained(found, terms, losses)
    latency_ms, loss = _every(terms, losses)
    best = ~dominated(np.stack([latency_ms, loss], axis=1), ("min", "min"))
    for budget_ms in latency_ms[best]:
        assert _found_loss(found, budget_ms) == pytest.approx(_least_loss(latency_ms, loss, budget_ms))


@given(made=problems(), data=st.data())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_is_exact_at_the_budgets_although_rough_elsewhere(made: tuple[Terms, Losses], data: st.DataObject) -> None:
    terms, losses = made
    latency_ms, loss = _every(terms, losses)
    budgets_ms = [float(np.quantile(latency_ms, q)) for q in data.draw(st.lists(st.floats(0, 1), min_size=1))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.elimination.front._ROUGH", 2)
        found = front(terms, losses, budgets_ms)
    assert found is not None
    assert found.gap == 0.0
    _check_attained(found, terms, losses)
    for budget_ms in budgets_ms:
        assert _found_loss(found, budget_ms) == pytest.approx(_least_loss(latency_ms, loss, budget_ms))


@given(made=problems(), most=st.integers(2, 6))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_thinning_keeps_attained_points_and_tells_the_gap(made: tuple[Terms, Losses], most: int) -> None:
    terms, losses = made
    found = front(terms, losses, most=most)
    assert found is not None
    assert len(found.loss) <= most
    _check_attained(found, terms, losses)
    latency_ms, loss = _every(terms, losses)
    for budget_ms in latency_ms:
        assert _found_loss(found, budget_ms) <= _least_loss(latency_ms, loss, budget_ms) + found.gap + 1e-9
    assert found.loss[-1] == pytest.approx(loss.min()), "the least loss always stays"


def test_a_budget_may_be_the_latency_of_the_fastest_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.elimination.front._ROUGH", 2)
    terms = Terms(("a",), 0.1, 0.3, (Term(("a",), np.arange(1.0, 9.0)),), 0.7)
    for step in (-1e-15, 0.0, 1e-15):
        found = front(terms, {"a": np.arange(8.0)[::-1]}, [float(terms.latency_ms(np.array([[0]]))[0]) + step])
        assert found is not None
        assert found.gap == 0.0
        assert found.levels[0].tolist() == [0]


def test_thinning_happens_and_costs_something() -> None:
    """Otherwise the test above shows nothing."""
    rng = np.random.default_rng(0)
    knobs = tuple(f"k{i}" for i in range(5))
    terms = Terms(knobs, 0.0, 1.0, tuple(Term((name,), np.sort(rng.exponential(size=4))) for name in knobs))
    losses = {name: np.sort(rng.exponential(size=4))[::-1] for name in knobs}
    rough, exact = front(terms, losses, most=8), front(terms, losses)
    assert rough is not None
    assert exact is not None
    assert rough.gap > 0.0 == exact.gap
    assert any(_found_loss(rough, b) > _found_loss(exact, b) for b in exact.latency_ms)


@given(made=problems())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_only_levels_beaten_everywhere_are_left_out(made: tuple[Terms, Losses]) -> None:
    terms, losses = made
    kept = kept_levels([terms], losses)
    counts = [len(losses[name]) for name in terms.knobs]
    latency_ms, loss = (each.reshape(counts) for each in _every(terms, losses))
    some = np.ix_(*(kept[name] for name in terms.knobs))
    assume(any(len(kept[name]) < len(losses[name]) for name in terms.knobs))
    for budget_ms in latency_ms.ravel():
        fewer = _least_loss(latency_ms[some], loss[some], budget_ms)
        assert fewer == pytest.approx(_least_loss(latency_ms, loss, budget_ms))


def test_a_staircase_keeps_the_right_end_of_each_step() -> None:
    """A width that takes longer than a wider one is not kept either."""
    terms = Terms(("a",), 0.0, 1.0, (Term(("a",), np.array([2.0, 1.0, 1.0, 3.0, 2.5, 2.5, 4.0])),))
    kept = kept_levels([terms], {"a": np.arange(7.0)[::-1]})
    assert kept["a"].tolist() == [2, 5, 6]


def test_levels_of_use_for_another_latency_stay() -> None:
    flat = Terms(("a",), 0.0, 1.0, (Term(("a",), np.ones(3)),))
    rising = Terms(("a",), 0.0, 1.0, (Term(("a",), np.arange(3.0)),))
    losses = {"a": np.array([2.0, 1.0, 0.0])}
    assert kept_levels([flat], losses)["a"].tolist() == [2]
    assert kept_levels([flat, rising], losses)["a"].tolist() == [0, 1, 2]


def test_a_joint_table_that_is_too_large_is_told_by_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.elimination.front._ALL_POINTS", 512)
    knobs = tuple(f"k{i}" for i in range(4))
    rng = np.random.default_rng(3)
    pairs = [(a, b) for a in knobs for b in knobs if a < b]
    terms = Terms(knobs, 0.0, 1.0, tuple(Term(pair, rng.normal(size=(4, 4))) for pair in pairs))
    assert front(terms, {name: rng.exponential(size=4) for name in knobs}) is None


@pytest.mark.parametrize("losses", [{}, {"a": np.ones(2)}, {"a": np.array([1.0, np.nan, 0.0])}, {"a": np.empty(0)}])
def test_losses_that_do_not_fit_are_refused(losses: Any) -> None:
    terms = Terms(("a",), 0.0, 1.0, (Term(("a",), np.ones(3)),))
    with pytest.raises(InvalidInput) as caught:
        front(terms, losses)
    assert caught.value.field == "losses"
