"""The least latency of partial choices, against enumeration on random terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.elimination.least import Least
from search.errors import InvalidInput
from search.synthetic.network import PRECISION
from search.synthetic.replay import make_replay
from search.terms import Term, Terms


@st.composite
def random_terms(draw: st.DrawFn) -> tuple[Terms, tuple[int, ...]]:
    """Return terms whose tables are not monotone, and the number of levels of each knob; some knobs are in no table."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=6)))
    knobs = tuple(f"k{i}" for i in range(len(counts)))
    terms = []
    for _ in range(draw(st.integers(0, 7))):
        on = rng.permutation(len(counts))[: rng.integers(1, min(3, len(counts)) + 1)]
        table = rng.normal(size=[counts[i] for i in on]) * 10.0 ** rng.integers(-2, 3)
        terms.append(Term(tuple(knobs[i] for i in on), table))
    scale = draw(st.sampled_from((1.0, 0.3, -1.5, 0.0)))
    return Terms(knobs, float(rng.normal()), scale, tuple(terms), float(rng.normal())), counts


def _enumerated(terms: Terms, counts: tuple[int, ...], fixed: Mapping[str, int]) -> NDArray[np.float64]:
    """Return the latency at every assignment, with infinity where a fixed knob has another level."""
    levels = np.indices(counts).reshape(len(counts), -1)
    latency = terms.latency_ms(levels.T)
    for name, level in fixed.items():
        latency[levels[terms.knobs.index(name)] != level] = np.inf
    return latency.reshape(counts)


def _some_fixed(data: st.DataObject, terms: Terms, counts: tuple[int, ...]) -> dict[str, int]:
    names = data.draw(st.lists(st.sampled_from(terms.knobs), unique=True))
    return {name: data.draw(st.integers(0, counts[terms.knobs.index(name)] - 1)) for name in names}


@given(made=random_terms(), data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_agrees_with_enumeration(made: tuple[Terms, tuple[int, ...]], data: st.DataObject) -> None:
    terms, counts = made
    least = Least(terms, counts)
    assert least.exact
    for _ in range(3):
        fixed = _some_fixed(data, terms, counts)
        latency = _enumerated(terms, counts, fixed)
        assert least.at(fixed) == pytest.approx(latency.min())
        for i, name in enumerate(terms.knobs):
            if name not in fixed:
                others = tuple(axis for axis in range(len(counts)) if axis != i)
                assert least.by_level(fixed, name) == pytest.approx(latency.min(axis=others))
        completion = least.completion(fixed)
        assert tuple(completion) == terms.knobs
        assert latency[tuple(completion.values())] == pytest.approx(latency.min())


@given(made=random_terms(), limit_entries=st.integers(1, 12), data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_mini_buckets_never_exceed_the_least(
    made: tuple[Terms, tuple[int, ...]], limit_entries: int, data: st.DataObject
) -> None:
    terms, counts = made
    least = Least(terms, counts, limit_entries)
    fixed = _some_fixed(data, terms, counts)
    latency = _enumerated(terms, counts, fixed)
    tolerance = 1e-9 * (1.0 + np.abs(latency[np.isfinite(latency)]).max())
    assert least.at(fixed) <= latency.min() + tolerance
    for i, name in enumerate(terms.knobs):
        if name not in fixed:
            others = tuple(axis for axis in range(len(counts)) if axis != i)
            assert (least.by_level(fixed, name) <= latency.min(axis=others) + tolerance).all()
    completion = least.completion(fixed)
    assert fixed.items() <= completion.items()
    assert least.at(completion) == pytest.approx(latency[tuple(completion.values())])


def _ring(size: int, levels: int) -> Terms:
    """Return terms in which each knob shares a table with every other one, so that no order is cheap."""
    rng = np.random.default_rng(5)
    knobs = tuple(f"k{i}" for i in range(size))
    pairs = [(a, b) for a in knobs for b in knobs if a < b]
    return Terms(knobs, 0.0, 1.0, tuple(Term(pair, rng.normal(size=(levels, levels))) for pair in pairs))


def test_a_table_over_the_limit_makes_a_bound_that_is_told() -> None:
    terms = _ring(5, 4)
    exact, bound = Least(terms), Least(terms, limit_entries=64)
    assert exact.exact
    assert not bound.exact
    assert bound.at({}) < exact.at({})
    fixed = {"k0": 1, "k1": 2, "k2": 0}
    assert bound.at(fixed) == pytest.approx(exact.at(fixed)), "two open knobs fit the limit"


def test_a_question_stays_cheap_with_many_fixed_knobs_around_one_stream() -> None:
    """Forty inner widths share one stream: no table over all of them may be made."""
    rng = np.random.default_rng(1)
    knobs = ("stream", *(f"inner{i}" for i in range(40)))
    terms = Terms(knobs, 0.0, 1.0, tuple(Term((name, "stream"), rng.normal(size=(8, 16))) for name in knobs[1:]))
    least = Least(terms, limit_entries=1000)
    assert least.exact
    fixed = {name: int(rng.integers(8)) for name in knobs[1:]}
    every = sum(term.table_ms[fixed[term.knobs[0]]] for term in terms.terms)
    assert least.at(fixed) == pytest.approx(np.min(every))
    assert least.by_level(fixed, "stream") == pytest.approx(every)


def test_inner_widths_come_out_before_their_stream_and_the_option_last() -> None:
    terms = make_replay(0, knobs=12, levels=8).problem.terms["latency_ms@small-cpu"]
    order = [terms.knobs[column] for column in Least(terms).order]
    shared = {term.knobs[:2] for term in terms.terms if term.knobs[0].startswith("inner")}
    assert len(shared) == 9
    assert all(order.index(inner) < order.index(stream) for inner, stream in shared)
    assert order.index(PRECISION) >= len(order) - 2


def test_equals_the_latency_once_all_is_fixed() -> None:
    replay = make_replay(2, knobs=8, levels=6)
    terms = replay.problem.terms["latency_ms@wide-gpu"]
    least = Least(terms)
    levels = np.random.default_rng(0).integers(0, replay.network.space.level_counts, (20, len(terms.knobs)))
    for row, latency_ms in zip(levels, terms.latency_ms(levels), strict=True):
        assert least.at(dict(zip(terms.knobs, row, strict=True))) == pytest.approx(latency_ms)


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda least: least.at({"c": 0}), "knob"),
        (lambda least: least.at({"a": 2}), "a"),
        (lambda least: least.at({"a": -1}), "a"),
        (lambda least: least.completion({"b": 7}), "b"),
        (lambda least: least.by_level({"a": 0}, "a"), "knob"),
        (lambda least: least.by_level({}, "free"), "knob"),
        (lambda least: Least(TERMS, (2, 4, 1)), "level_counts"),
        (lambda least: Least(TERMS, (2,)), "level_counts"),
        (lambda least: Least(TERMS, limit_entries=0), "limit_entries"),
    ],
)
def test_wrong_questions_are_refused(ask: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(Least(TERMS))
    assert caught.value.field == field


TERMS = Terms(("a", "b", "free"), 1.0, 2.0, (Term(("b", "a"), np.array([[3.0, 1.0], [0.0, 2.0], [5.0, 5.0]])),), 0.5)


def test_a_knob_in_no_table_needs_its_level_count() -> None:
    assert Least(TERMS, (2, 3, 4)).by_level({"b": 0}, "free").tolist() == [4.0] * 4
    assert Least(TERMS).completion({}) == {"a": 0, "b": 1, "free": 0}
