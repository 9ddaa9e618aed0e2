"""Action bound: no episode ends above a limit, whatever the tables and the actions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.actor_critic import action_bound
from search.actor_critic.action_bound import ActionBound
from search.actor_critic.environment import Environment
from search.actor_critic.steps import steps_of
from search.elimination.least import Least
from search.problem import Constraint, Objective, Problem
from search.space import Choice, Float, Int, Knob, Space
from search.stepping.lattice import Lattice
from search.strategies.ddpg import Ddpg, Settings
from search.terms import Term, Terms

WIDTHS = tuple(Choice(f"w{i}", (2, 4, 8, 16), True, {"index": float(i)}) for i in range(4))
KNOBS: tuple[Knob, ...] = (*WIDTHS, Choice("precision", ("fp32", "int8"), ordered=False))
ALL = np.array(list(product(range(4), range(4), range(4), range(4), range(2))), dtype=np.int64)


def tables(rng: np.random.Generator, knobs: tuple[Knob, ...] = KNOBS) -> Terms:
    """Return a latency of random tables: neither monotone nor, in part, positive."""
    space = Space(knobs)
    names = [knob.name for knob in space.levelled]
    sizes = dict(zip(names, space.level_counts, strict=True))
    terms = []
    for _ in range(6):
        scope = rng.permutation(names)[: rng.integers(1, 4)].tolist()
        terms.append(Term(tuple(scope), rng.normal(0.5, 1.0, [sizes[name] for name in scope])))
    return Terms(tuple(names), 0.3, float(rng.uniform(0.5, 2.0)), tuple(terms), 0.1)


def problem_of(terms: Mapping[str, Terms], bounds: Mapping[str, float], knobs: tuple[Knob, ...] = KNOBS) -> Problem:
    space = Space(knobs)
    constraints = tuple(Constraint(metric, bound, "max") for metric, bound in bounds.items())

    def estimate(batch: object) -> dict[str, NDArray[np.float64]]:
        return {metric: found.latency_ms(space.levels_of(batch)) for metric, found in terms.items()}  # type: ignore[arg-type]  # values

    return Problem(space, (Objective("accuracy", "max"),), constraints, estimate, terms)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 0.6))
def test_it_admits_exactly_the_rungs_from_which_the_limit_can_be_met(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    terms = tables(rng)
    latency_ms = terms.latency_ms(ALL)
    bound = float(np.quantile(latency_ms, share)) + 1e-9
    problem = problem_of({"latency_ms": terms}, {"latency_ms": bound})
    found = ActionBound(problem)
    steps = steps_of(problem.space, Lattice(problem).rungs)
    fixed: dict[str, int] = {}
    left = latency_ms <= bound
    for step in steps:
        column = terms.knobs.index(step.knob.name)
        possible = np.isin(np.arange(len(step.rungs)), ALL[left, column])
        np.testing.assert_array_equal(found.admissible(fixed, step), possible)
        fixed[step.knob.name] = int(rng.choice(np.flatnonzero(possible)))
        left &= ALL[:, column] == fixed[step.knob.name]
    assert found.exact


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 0.6))
def test_no_episode_ends_above_the_limit_and_none_needs_a_repair(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    terms = tables(rng)
    bound = float(np.quantile(terms.latency_ms(ALL), share)) + 1e-9
    environment = Environment(problem_of({"latency_ms": terms}, {"latency_ms": bound}), False)
    for _ in range(5):
        values = environment.walk(lambda state: float(rng.uniform()))
        assert values is not None
        assert terms.latency_ms(Space(KNOBS).levels(values)[None])[0] <= bound
    assert environment.repairs == 0
    assert not environment.notes


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.9))
def test_no_episode_ends_above_one_of_several_limits(seed: int, share: float) -> None:
    """Each limit alone can be met at every step, but not always both: some ends are repaired, or given up."""
    rng = np.random.default_rng(seed)
    terms = {"latency_ms@a": tables(rng), "latency_ms@b": tables(rng)}
    bounds = {metric: float(np.quantile(found.latency_ms(ALL), share)) for metric, found in terms.items()}
    problem = problem_of(terms, bounds)
    environment = Environment(problem, False)
    assert not ActionBound(problem).exact
    assert "several limits" in environment.notes[0]
    for _ in range(5):
        values = environment.walk(lambda state: float(rng.uniform()))
        assert values is None or problem.violations([values])[0] == 0.0


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.9))
def test_a_lower_bound_is_made_good_by_a_repair(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    terms = tables(rng)
    bound = float(np.quantile(terms.latency_ms(ALL), share))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(action_bound, "Least", lambda terms, counts: Least(terms, counts, limit_entries=1))
        problem = problem_of({"latency_ms": terms}, {"latency_ms": bound})
        environment = Environment(problem, False)
    for _ in range(5):
        values = environment.walk(lambda state: float(rng.uniform()))
        assert values is None or problem.violations([values])[0] == 0.0


def test_tables_that_are_too_wide_for_an_exact_bound_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_bound, "Least", lambda terms, counts: Least(terms, counts, limit_entries=1))
    names = tuple(knob.name for knob in KNOBS)
    pairs = tuple(Term(pair, np.ones((4, 4))) for pair in combinations(names[:4], 2))
    problem = problem_of({"latency_ms": Terms(names, 0.0, 1.0, pairs)}, {"latency_ms": 6.0})
    (note,) = Ddpg(problem, Settings(), 0).notes
    assert "because the tables of a limit are too wide to be joined." in note
    assert not ActionBound(problem).exact


def test_a_limit_that_is_no_sum_of_tables_is_met_by_a_repair() -> None:
    space = Space(WIDTHS)
    problem = Problem(
        space,
        (Objective("accuracy", "max"),),
        (Constraint("macs", 20.0, "max"),),
        lambda batch: {"macs": np.array([sum(map(float, v.values())) for v in batch])},  # type: ignore[arg-type]  # widths
    )
    environment = Environment(problem, False)
    values = environment.walk(lambda state: 1.0)
    assert values is not None
    assert sum(float(width) for width in values.values()) <= 20.0  # type: ignore[arg-type]  # widths
    assert environment.repairs == 1
    (note,) = environment.notes
    assert note.startswith("The action bound is a lower bound, because a limit is not a sum of tables.")


def test_a_limit_below_every_network_is_told() -> None:
    terms = tables(np.random.default_rng(0))
    bound = float(terms.latency_ms(ALL).min()) - 1.0
    environment = Environment(problem_of({"latency_ms": terms}, {"latency_ms": bound}), False)
    assert environment.walk(lambda state: 0.5) is None


def test_a_density_is_set_and_bounds_nothing() -> None:
    knobs = (*WIDTHS, Float("density", 0.0, 1.0))
    terms = tables(np.random.default_rng(1), knobs)
    problem = problem_of({"latency_ms": terms}, {"latency_ms": 1e9}, knobs)
    values = Environment(problem, False).walk(lambda state: 0.25)
    assert values is not None
    assert values["density"] == 0.25


def test_a_knob_of_one_level_takes_part() -> None:
    knobs = (*WIDTHS, Int("fixed", 3, 3))
    terms = tables(np.random.default_rng(2), KNOBS[:4])
    wider = Terms((*terms.knobs, "fixed"), terms.offset_ms, terms.scale, terms.terms, terms.fixed_ms)
    values = Environment(problem_of({"latency_ms": wider}, {"latency_ms": 1e9}, knobs), False).walk(lambda state: 0.0)
    assert values == {"w0": 2, "w1": 2, "w2": 2, "w3": 2, "fixed": 3}
