"""States: the paper's features, with latency in place of FLOPs."""

from __future__ import annotations

import numpy as np
import pytest

from search.actor_critic.states import WIDTH, States
from search.actor_critic.steps import steps_of
from search.problem import Constraint, Objective, Problem
from search.space import Choice, Space
from search.stepping.lattice import Lattice
from search.synthetic.replay import make_replay
from search.terms import Term, Terms

FACTS = {"channels": 8.0, "input_channels": 4.0, "height": 16.0, "width": 16.0, "stride": 1.0, "kernel": 3.0}
FIRST = Choice("first", (2, 4, 8), True, {"index": 0.0, **FACTS})
SECOND = Choice("second", (2, 4, 8), True, {"index": 1.0, **FACTS, "channels": 32.0, "stride": 2.0})
PRECISION = Choice("precision", ("fp32", "int8"), ordered=False)
SPACE = Space((SECOND, FIRST, PRECISION))
TERMS = Terms(
    SPACE.names,
    0.0,
    1.0,
    (Term(("first",), np.array([1.0, 2.0, 4.0])), Term(("second",), np.array([1.0, 1.5, 5.0]))),
    1.0,
)
T, N, C, H, W, STRIDE, K, LATENCY, LOSS, REDUCED, REST, NEED, BEFORE, OPTION = range(WIDTH)


def problem(bound: float = 6.0, terms: Terms | None = TERMS) -> Problem:
    constraints = (Constraint("latency_ms", bound, "max"),)
    known = {} if terms is None else {"latency_ms": terms}
    statistics = {"ls_error": {"first": np.array([0.4, 0.1, 0.0]), "second": np.array([0.9, 0.3, 0.0])}}
    return Problem(SPACE, (Objective("accuracy", "max"),), constraints, lambda batch: {}, known, statistics)


def episode(found: Problem, values: dict[str, int | str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    steps = steps_of(SPACE, Lattice(found).rungs)
    actions = np.array([step.action(values[step.knob.name]) for step in steps])
    return States(found, steps).before(np.arange(len(steps)), SPACE.levels(values), actions)


def test_what_does_not_change_is_scaled_over_the_steps() -> None:
    states = episode(problem(), {"first": 8, "second": 8, "precision": "fp32"})
    np.testing.assert_allclose(states[:, T], [0.0, 0.5, 1.0])
    np.testing.assert_allclose(states[:, N], [0.0, 8 / 32, 1.0])
    np.testing.assert_allclose(states[:, STRIDE], [0.0, 0.5, 1.0])
    np.testing.assert_allclose(states[:, LATENCY], [0.0, 3 / 4, 1.0])
    np.testing.assert_allclose(states[:, LOSS], [0.0, (0.5 / 3) / 0.4, 1.0])


def test_reduced_and_rest_are_shares_of_the_latency() -> None:
    """10 ms in all; int8 saves nothing here; first saves 2 ms at 4; second can save 4 ms."""
    states = episode(problem(), {"first": 4, "second": 2, "precision": "int8"})
    np.testing.assert_allclose(states[:, REDUCED], [0.0, 0.0, 0.2])
    np.testing.assert_allclose(states[:, REST], [0.7, 0.7, 0.4])
    np.testing.assert_allclose(states[:, NEED], [0.4 / 0.7, 0.4 / 0.7, 0.2 / 0.4])
    np.testing.assert_allclose(states[:, BEFORE], [1.0, 0.0, 1 / 3])
    np.testing.assert_allclose(states[:, OPTION], [1.0, 0.0, 0.0])


def test_later_steps_are_not_seen() -> None:
    narrow = episode(problem(), {"first": 4, "second": 2, "precision": "fp32"})
    wide = episode(problem(), {"first": 4, "second": 8, "precision": "fp32"})
    np.testing.assert_array_equal(narrow, wide)


@pytest.mark.parametrize("bound", [1e-3, 1e9])
def test_every_feature_lies_between_0_and_1(bound: float) -> None:
    for values in ({"first": 2, "second": 2, "precision": "int8"}, {"first": 8, "second": 8, "precision": "fp32"}):
        states = episode(problem(bound), values)
        assert ((states >= 0.0) & (states <= 1.0)).all()


def test_without_sums_of_tables_nothing_is_reduced() -> None:
    states = episode(problem(terms=None), {"first": 2, "second": 2, "precision": "int8"})
    assert not states[:, [LATENCY, REDUCED, REST, NEED]].any()


def test_layers_of_a_network_have_states_of_their_own() -> None:
    found = make_replay(0, knobs=8, ratios={"latency_ms@small-cpu": 0.4, "latency_ms@wide-gpu": 0.9}).problem
    steps = steps_of(found.space, Lattice(found).rungs)
    whole = found.space.levels(found.space.whole)
    states = States(found, steps).before(np.arange(len(steps)), whole, np.ones(len(steps)))
    assert len(np.unique(states, axis=0)) == len(steps)
