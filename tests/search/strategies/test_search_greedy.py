"""What is particular to greedy; the contract is in test_search_strategies.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from search.candidate import Candidate
from search.evaluation import Evaluation
from search.stepping.lattice import Lattice
from search.strategies.greedy import Greedy, Settings
from search.synthetic.network import PRECISION
from search.synthetic.replay import Replay, make_replay, run
from search.testing import SEVERAL, failed


def _greedy(replay: Replay, **settings: Any) -> Greedy:
    return Greedy(replay.problem, Settings(**settings), 0)


def _best(replay: Replay, done: list[Evaluation]) -> float:
    return max(replay.accuracy(e.candidate.values) for e in done if replay.problem.feasible(e.metrics))


def _run(strategy: Greedy, replay: Replay, evaluate: Callable[[Candidate], Evaluation]) -> list[Evaluation]:
    done: list[Evaluation] = []
    while len(done) < replay.problem.evaluations and (asked := strategy.ask(2)):
        told = [evaluate(candidate) for candidate in asked]
        strategy.tell(told, [])
        done += told
    return done


@pytest.mark.parametrize("seed", range(30, 36))
def test_comes_near_the_optimum(seed: int) -> None:
    replay = make_replay(seed, knobs=6, levels=6, evaluations=40, noise=0.0)
    done = run(_greedy(replay), replay)
    assert _best(replay, done) > replay.optimum[1] - 0.01


@pytest.mark.parametrize("seed", range(30, 34))
def test_comes_near_the_optimum_under_several_limits(seed: int) -> None:
    replay = make_replay(seed, knobs=6, levels=6, evaluations=40, noise=0.0, ratios=SEVERAL, statistics=False)
    done = run(_greedy(replay), replay)
    assert _best(replay, done) > replay.optimum[1] - 0.01


def test_asks_for_int8_first_and_keeps_it_when_it_is_free() -> None:
    replay = make_replay(1, knobs=6, levels=6)
    done = run(_greedy(replay), replay, batch=1)
    first = done[0].candidate.values
    assert first == {**_top(replay), PRECISION: "int8"}
    best = max((e for e in done if replay.problem.feasible(e.metrics)), key=lambda e: e.metrics["accuracy"])
    assert best.candidate.values[PRECISION] == "int8"


def test_does_without_int8_when_it_costs_too_much() -> None:
    """The same problem with an int8 that ruins the network: half of the accuracy is gone."""
    replay = make_replay(1, knobs=6, levels=6, ratios={"latency_ms@small-cpu": 0.7})

    def evaluate(candidate: Candidate) -> Evaluation:
        told = replay.evaluate(candidate)
        ruined = 0.5 if candidate.values[PRECISION] == "int8" else 1.0
        return Evaluation(candidate, told.status, {**told.metrics, "accuracy": told.metrics["accuracy"] * ruined})

    done = _run(_greedy(replay), replay, evaluate)
    best = max((e for e in done if replay.problem.feasible(e.metrics)), key=lambda e: e.metrics["accuracy"])
    assert best.candidate.values[PRECISION] == "fp32"
    assert best.metrics["accuracy"] > 0.8


def test_an_option_that_always_fails_is_given_up() -> None:
    replay = make_replay(1, knobs=6, levels=6, ratios={"latency_ms@small-cpu": 0.7})

    def evaluate(candidate: Candidate) -> Evaluation:
        return failed(candidate) if candidate.values[PRECISION] == "int8" else replay.evaluate(candidate)

    done = _run(_greedy(replay), replay, evaluate)
    assert sum(e.candidate.values[PRECISION] == "int8" for e in done) == 1
    assert _best(replay, [e for e in done if e.metrics]) > 0.8


def test_a_failed_proposal_is_replaced_by_the_next_in_line() -> None:
    replay = make_replay(2, knobs=8, levels=6, precision=False, evaluations=18)
    strategy = _greedy(replay)
    first = strategy.ask(9)
    assert len(first) == 4  # half of 18 evaluations: the leap, and two rounds of three
    strategy.tell([failed(first[0]), *map(replay.evaluate, first[1:])], [])
    (replacement,) = strategy.ask(9)
    assert replacement.values not in [candidate.values for candidate in first]


def test_waits_for_the_round_while_results_are_pending() -> None:
    replay = make_replay(2, knobs=8, levels=6, precision=False, evaluations=18)
    strategy = _greedy(replay)
    first = strategy.ask(9)
    strategy.tell([replay.evaluate(first[0])], first[1:])
    assert strategy.ask(9) == []
    strategy.tell([replay.evaluate(candidate) for candidate in first[1:3]], [])  # the fourth is lost
    assert [candidate.values for candidate in strategy.ask(9)] == [first[3].values]


def test_foreign_results_save_evaluations() -> None:
    replay = make_replay(3, knobs=8, levels=6, precision=False, evaluations=18)
    first = _greedy(replay).ask(9)
    foreign = [replay.evaluate(Candidate(f"x{i}", c.values, origin="x")) for i, c in enumerate(first)]
    strategy = _greedy(replay)
    strategy.tell(foreign, [])
    asked = strategy.ask(9)
    assert asked
    assert all(candidate.values not in [c.values for c in first] for candidate in asked)


def test_every_round_brings_the_limit_nearer_and_swaps_leave_no_slack() -> None:
    replay = make_replay(4, knobs=8, levels=6, precision=False, evaluations=32, noise=0.0)
    lattice = Lattice(replay.problem)
    strategy = _greedy(replay)
    done = run(strategy, replay, batch=4)
    leap, *steps = done[:13]  # half of 32 evaluations: the leap, and three rounds of four
    assert replay.problem.violation(leap.metrics) == 0.0
    over = [max(replay.problem.violation(e.metrics) for e in steps[i : i + 4]) for i in (0, 4, 8)]
    assert over == sorted(over, reverse=True)
    assert over[0] > 0.0
    assert over[-1] == 0.0
    for evaluation in done[13:]:
        point = lattice.point(evaluation.candidate.values)
        assert point is not None
        wider = np.array([point + step for step in np.eye(len(point), dtype=np.int64)])
        wider = wider[(wider < np.array(lattice.counts)).all(axis=1)]
        assert lattice.violation(point) == 0.0
        assert (lattice.violations(wider) > 0.0).all() or not len(wider)


def test_a_new_latency_table_does_not_send_it_back_up() -> None:
    """After the way down, estimates change a little: the fresh one goes on around the best it is told of."""
    old = make_replay(6, knobs=8, levels=8, precision=False, evaluations=32)
    done = run(_greedy(old), old, evaluations=20)
    terms = {
        metric: replace(table, terms=tuple(replace(t, table_ms=_shaken(t.table_ms)) for t in table.terms))
        for metric, table in old.problem.terms.items()
    }
    problem = replace(old.problem, terms=terms)
    fresh = Greedy(problem, Settings(), 0)
    fresh.tell(done, [])
    lattice = Lattice(problem)
    for candidate in fresh.ask(6):
        point = lattice.point(candidate.values)
        assert point is not None
        assert lattice.violation(point) == 0.0


def _shaken(table_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(table_ms * np.random.default_rng(0).normal(1.0, 0.05, table_ms.shape))


def test_a_budget_cut_short_by_others_still_ends_under_the_limit() -> None:
    replay = make_replay(6, knobs=12, levels=6, precision=False, evaluations=60)
    done = run(_greedy(replay), replay, evaluations=8)
    assert any(replay.problem.feasible(e.metrics) for e in done)


@pytest.mark.parametrize("evaluations", [1, 2, 3, 5, 8])
def test_a_small_budget_still_ends_under_the_limit(evaluations: int) -> None:
    replay = make_replay(5, knobs=12, levels=6, precision=False, evaluations=evaluations)
    done = run(_greedy(replay), replay)
    assert len(done) == evaluations
    assert any(replay.problem.feasible(e.metrics) for e in done)


def test_parents_name_the_evaluation_that_was_stepped_from() -> None:
    replay = make_replay(4, knobs=6, levels=6, evaluations=30)
    done = run(_greedy(replay), replay)
    ids = {e.candidate.id for e in done}
    assert all(set(e.candidate.parents) <= ids for e in done)
    assert sum(bool(e.candidate.parents) for e in done) > 15


def _top(replay: Replay) -> dict[str, Any]:
    lattice = Lattice(replay.problem)
    return lattice.values(lattice.top)
