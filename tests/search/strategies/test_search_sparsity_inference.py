"""`bayesian` and its control `bisection`: one sparsity from at most ten full training runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from search.candidate import Candidate
from search.errors import Infeasible
from search.evaluation import NAN, Evaluation, Status
from search.problem import Constraint, Objective, Problem
from search.space import Float, Space, Values
from search.strategies import load
from search.strategy import Strategy

ROOT = Path(__file__).parents[3]
SIZE, ACCURACY = Objective("size_bytes", "min"), Objective("accuracy", "max")
BOTH = pytest.mark.parametrize("name", ["bayesian", "bisection"])


def kept(values: Values) -> float:
    value = values["weight_prune"]
    assert isinstance(value, float)
    return value


def staircase(density: float) -> float:
    """Milliseconds: half as sparse as 0.8 is faster than what lies above."""
    return 10.0 if density > 0.5 else 5.0 if density > 0.2 else 6.0


def problem(objective: Objective = SIZE, limits: Sequence[Constraint] = (), **rest: Any) -> Problem:
    def estimate(batch: Sequence[Values]) -> dict[str, NDArray[np.float64]]:
        densities = np.array([kept(values) for values in batch])
        return {"size_bytes": 1e5 * densities, "latency_ms": np.array([staircase(d) for d in densities])}

    given: dict[str, Any] = {"level": 0.9, "original": {"accuracy": 0.95}, **rest}
    return Problem(Space((Float("weight_prune", 0.01, 1.0),)), (objective,), tuple(limits), estimate, **given)


def strategy(name: str, given: Problem, **settings: Any) -> Strategy:
    family = load(name)
    return family.make(given, family.settings(**settings), 0)


def trained(candidate: Candidate, accuracy: float) -> Evaluation:
    density = kept(candidate.values)
    metrics = {"accuracy": accuracy, "size_bytes": 1e5 * density, "latency_ms": staircase(density)}
    return Evaluation(candidate, Status.COMPLETED, metrics, network=f"of {candidate.id}")


def searched(searching: Strategy, accuracy: Callable[[float], float]) -> list[Evaluation]:
    """Samples until it has no more to ask; accuracy is a function of the sparsity."""
    done = []
    while asked := searching.ask(4):
        (candidate,) = asked
        done.append(trained(candidate, accuracy(1.0 - kept(candidate.values))))
        searching.tell(done[-1:], [])
    return done


def sparsities(done: Sequence[Evaluation]) -> list[float]:
    return [1.0 - kept(evaluation.candidate.values) for evaluation in done]


def cliff(s: float) -> float:
    return 0.93 if s < 0.915 else 0.5


def test_the_crossing_is_found_under_noise_and_no_worse_than_by_bisection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("sparsity_inference")
    for kind in ("units", "weights"):
        wrong, taken = benchmark.errors("bayesian", kind, 20)
        control, _ = benchmark.errors("bisection", kind, 20)
        assert np.median(wrong) <= 0.01
        assert np.median(wrong) <= np.median(control)
        assert max(taken) <= 10
    sys.modules.pop("sparsity_inference")


@BOTH
def test_the_last_sparsity_before_a_cliff(name: str) -> None:
    done = searched(strategy(name, problem()), cliff)
    best = max(s for s in sparsities(done) if cliff(s) >= 0.9)
    assert 0.905 <= best < 0.915
    assert len(done) <= 10


@BOTH
def test_samples_are_whole_trainings_from_the_nearest_solved_below(name: str) -> None:
    done = searched(strategy(name, problem(), recipe="direct"), cliff)
    for number, evaluation in enumerate(done):
        candidate = evaluation.candidate
        assert (candidate.fidelity, candidate.recipe) == ("F4", "direct")
        below = [e for e in done[:number] if kept(e.candidate.values) > kept(candidate.values)]
        nearest = min(below, key=lambda e: kept(e.candidate.values), default=None)
        assert candidate.weights_from == (nearest.network if nearest else None)
        assert candidate.parents == ((nearest.candidate.id,) if nearest else ())
    assert any(evaluation.candidate.weights_from for evaluation in done)


@BOTH
def test_one_sample_at_a_time_and_no_more_than_allowed(name: str) -> None:
    searching = strategy(name, problem(), samples=3)
    first = searching.ask(5)
    assert len(first) == 1
    assert searching.ask(1) == []
    searching.tell([trained(first[0], 0.93)], [])
    assert len(searched(searching, cliff)) == 2


@BOTH
def test_what_diverged_is_not_tried_any_sparser(name: str) -> None:
    searching = strategy(name, problem())
    (first,) = searching.ask(1)
    searching.tell([Evaluation(first, Status.FAILED, reason=NAN)], [])
    done = searched(searching, lambda s: 0.93)
    assert done
    assert max(sparsities(done)) < 1.0 - kept(first.values)


@BOTH
def test_what_a_machine_lost_says_nothing_of_its_sparsity(name: str) -> None:
    searching = strategy(name, problem())
    (first,) = searching.ask(1)
    searching.tell([Evaluation(first, Status.FAILED, reason="its worker ended, 2 times: SIGKILL")], [])
    done = searched(searching, lambda s: 0.93)
    assert max(sparsities(done)) > 1.0 - kept(first.values)
    assert all(each.candidate.values != first.values for each in done)


@BOTH
def test_samples_of_another_recipe_or_fidelity_decide_nothing(name: str) -> None:
    fresh, told = strategy(name, problem()), strategy(name, problem())
    (sample,) = strategy("bisection", problem(), recipe="direct").ask(1)
    proxy = replace(sample, id="proxy", fidelity="F2", recipe="")
    told.tell([trained(sample, 0.1), trained(proxy, 0.1)], [])
    (ours,), (theirs,) = told.ask(1), fresh.ask(1)
    assert (ours.values, ours.weights_from) == (theirs.values, theirs.weights_from)


@BOTH
def test_samples_of_the_other_strategy_are_taken_for_its_own(name: str) -> None:
    (other,) = {"bayesian", "bisection"} - {name}
    (sample,) = strategy(other, problem()).ask(1)
    searching = strategy(name, problem())
    searching.tell([trained(sample, 0.93)], [])
    (asked,) = searching.ask(1)
    assert kept(asked.values) < kept(sample.values)
    assert asked.weights_from == f"of {sample.id}"


@BOTH
def test_limits_on_cost_are_met_by_every_sample(name: str) -> None:
    done = searched(strategy(name, problem(limits=[Constraint("latency_ms", 5.5, "max")])), cliff)
    assert all(0.5 <= s < 0.8 + 1e-9 for s in sparsities(done))
    assert max(sparsities(done)) > 0.79


@BOTH
def test_accuracy_under_a_limit_starts_at_the_least_sparsity_that_meets_it(name: str) -> None:
    given = problem(ACCURACY, [Constraint("latency_ms", 5.5, "max")])
    done = searched(strategy(name, given), lambda s: 0.95 - 0.1 * s)
    assert sparsities(done)[0] == pytest.approx(0.5, abs=0.01)
    assert all(0.5 <= s < 0.8 + 1e-9 for s in sparsities(done))


@BOTH
def test_no_sparsity_under_the_limits_is_said_with_the_nearest(name: str) -> None:
    with pytest.raises(Infeasible) as caught:
        strategy(name, problem(limits=[Constraint("latency_ms", 4.0, "max")])).ask(1)
    assert caught.value.metrics["latency_ms"] == 5.0


def test_accuracy_that_rises_with_the_sparsity_is_followed() -> None:
    """As of VGG-19 on CIFAR-10, which gains by moderate pruning."""
    given = problem(ACCURACY, [Constraint("latency_ms", 5.5, "max")], level=None)
    done = searched(strategy("bayesian", given), lambda s: 0.95 - 2.0 * (s - 0.7) ** 2)
    best = max(done, key=lambda evaluation: evaluation.metrics["accuracy"])
    assert sparsities([best])[0] == pytest.approx(0.7, abs=0.05)


def test_an_objective_that_is_estimated_takes_the_best_under_the_crossing() -> None:
    done = searched(strategy("bayesian", problem(Objective("latency_ms", "min"))), lambda s: 0.93 if s < 0.95 else 0.5)
    assert [staircase(kept(evaluation.candidate.values)) for evaluation in done[-2:]] == [6.0, 5.0]
    assert len(done) <= 10


def test_without_a_level_the_best_of_the_estimate_is_one_sample() -> None:
    done = searched(strategy("bayesian", problem(level=None)), cliff)
    assert sparsities(done) == [pytest.approx(0.99)]


@pytest.mark.parametrize(("images", "sparser"), [(100, True), (1_000_000, False)])
def test_how_clearly_a_sample_missed_depends_on_the_images(images: int, sparser: bool) -> None:
    """1 point under the level is nothing on a hundred images, and plain on a million."""
    searching = strategy("bayesian", problem(images=images))
    done = searched(searching, lambda s: 0.93 if s < 0.9 else 0.89)
    missed = [s for s in sparsities(done) if s >= 0.9]
    assert (max(missed) > missed[0]) is sparser


@BOTH
def test_a_fresh_one_told_everything_in_another_order_goes_on_alike(name: str) -> None:
    first = strategy(name, problem())
    done: list[Evaluation] = []
    while asked := first.ask(1):
        fresh = strategy(name, problem())
        fresh.tell(done[::-1], [])
        assert fresh.ask(1) == asked
        done.append(trained(asked[0], cliff(1.0 - kept(asked[0].values))))
        first.tell(done[-1:], [])
    assert len(done) > 3
