"""Optuna's samplers behind the strategy's two verbs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from search.candidate import Candidate
from search.errors import InvalidInput
from search.evaluation import Evaluation, Status
from search.problem import Constraint, Objective, Problem
from search.space import Choice, Float, Int, Space, Subset, Values
from search.strategies import load
from search.strategy import Strategy

BOTH = pytest.mark.parametrize(("name", "startup"), [("tpe", "startup"), ("nsga2", "population")])
SPACE = Space(
    (
        Choice("width", (4, 8, 16, 32), ordered=True),
        Int("rank", 1, 9),
        Float("weight_prune", 0.1, 1.0),
        Choice("precision", ("fp32", "fp16", "int8"), ordered=False),
        Choice("only", (7,), ordered=True),
    )
)
BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0}


def size(values: Values) -> float:
    width, rank, density = (float(values[name]) for name in ("width", "rank", "weight_prune"))  # type: ignore[arg-type]
    return width * rank * density * BYTES[str(values["precision"])]


def accuracy(values: Values) -> float:
    """Best in int8, which leaves room for width."""
    width, rank, density = (float(values[name]) for name in ("width", "rank", "weight_prune"))  # type: ignore[arg-type]
    return 0.9 - 0.1 / width - 0.1 / rank - 0.1 / density**0.5 * 0.1


def problem(**changes: Any) -> Problem:
    def estimate(batch: Sequence[Values]) -> dict[str, NDArray[np.float64]]:
        return {"size_bytes": np.array([size(values) for values in batch])}

    given: dict[str, Any] = {
        "space": SPACE,
        "objectives": (Objective("accuracy", "max"),),
        "constraints": (Constraint("size_bytes", 200.0, "max"),),
    }
    return Problem(estimate=estimate, **{**given, **changes})


def evaluated(candidate: Candidate) -> Evaluation:
    metrics = {"accuracy": accuracy(candidate.values), "size_bytes": size(candidate.values)}
    return Evaluation(candidate, Status.COMPLETED, metrics)


def strategy(name: str, given: Problem, **settings: int) -> Strategy:
    family = load(name)
    return family.make(given, family.settings(**settings), 3)


def searched(searching: Strategy, evaluations: int) -> list[Evaluation]:
    done: list[Evaluation] = []
    while len(done) < evaluations:
        told = [evaluated(candidate) for candidate in searching.ask(2)]
        searching.tell(told, [])
        done += told
    return done


@BOTH
def test_every_kind_of_knob_comes_back_as_it_is(name: str, startup: str) -> None:
    for evaluation in searched(strategy(name, problem(), **{startup: 4}), 20):
        SPACE.check(evaluation.candidate.values)
        assert size(evaluation.candidate.values) <= 200.0


@BOTH
def test_the_model_proposes_nothing_before_its_startup(name: str, startup: str) -> None:
    early, late = (searched(strategy(name, problem(), **{startup: first}), 8) for first in (6, 8))
    same = [a.candidate.values == b.candidate.values for a, b in zip(early, late, strict=True)]
    assert same == [True] * 6 + [False] * 2
    assert load(name).startup(load(name).settings(**{startup: 6})) == 6


def test_strategies_of_one_race_start_from_points_of_their_own() -> None:
    firsts = [strategy(name, problem()).ask(8) for name in ("tpe", "nsga2", "random")]
    drawn = [json.dumps(dict(candidate.values), sort_keys=True) for asked in firsts for candidate in asked]
    assert len(set(drawn)) == len(drawn) == 24


@BOTH
def test_proposals_use_the_room_under_the_limits(name: str, startup: str) -> None:
    done = searched(strategy(name, problem(), **{startup: 4}), 16)
    used = [size(evaluation.candidate.values) for evaluation in done]
    assert np.mean(used[4:]) > 130.0 > np.mean(used[:4])


@BOTH
def test_a_cost_that_is_to_be_small_is_not_grown_up_to_the_limits(name: str, startup: str) -> None:
    both = (Objective("accuracy", "max"), Objective("size_bytes", "min"))
    done = searched(strategy(name, problem(objectives=both), **{startup: 4}), 16)
    assert np.mean([size(evaluation.candidate.values) for evaluation in done[4:]]) < 150.0


def test_tpe_comes_nearer_to_what_was_good() -> None:
    """Of fp32, fp16 and int8, only int8 is ever worth its place."""
    told = [
        evaluated(Candidate(f"o{i}", values, origin="other"))
        for i in range(60)
        if size(values := SPACE.sample(np.random.default_rng(i))) <= 200.0
    ]
    marked = [
        Evaluation(e.candidate, e.status, {"accuracy": 0.9 if e.candidate.values["precision"] == "int8" else 0.1})
        for e in told
    ]
    assert len(marked) > 20
    searching = strategy("tpe", problem())
    searching.tell(marked, [])
    options = [candidate.values["precision"] for candidate in searching.ask(12)]
    assert options.count("int8") >= 9


def test_children_of_nsga2_are_made_of_the_best_known() -> None:
    """Without a limit, every knob of a child is that of one of its two parents, or mutated."""
    free = problem(constraints=())
    drawn = [SPACE.sample(np.random.default_rng(i)) for i in range(30)]
    told = [evaluated(Candidate(f"o{i:02d}", values, origin="other")) for i, values in enumerate(drawn)]
    best = sorted(told, key=lambda evaluation: evaluation.metrics["accuracy"])[-4:]
    pool = {name: {evaluation.candidate.values[name] for evaluation in best} for name in SPACE.names}
    searching = strategy("nsga2", free, population=4)
    searching.tell(told, [])
    children = searching.ask(12)
    inherited = [child.values[name] in pool[name] for child in children for name in SPACE.names]
    assert np.mean(inherited) > 0.75  # the rest are mutations: one knob in five


@BOTH
def test_a_subset_is_refused(name: str, startup: str) -> None:
    with pytest.raises(InvalidInput, match="cannot search a Subset"):
        strategy(name, problem(space=Space((Subset("units", 4),))))


@BOTH
def test_what_is_in_flight_is_not_asked_for_again(name: str, startup: str) -> None:
    tiny = problem(
        space=Space((Choice("width", (1, 2, 3), ordered=True), Choice("precision", ("a", "b"), False))), constraints=()
    )
    searching = strategy(name, tiny, **{startup: 2})
    asked = searching.ask(20)
    assert len(asked) == 6
    searching.tell([Evaluation(c, Status.COMPLETED, {"accuracy": 0.5}) for c in asked[:3]], asked[3:])
    assert searching.ask(1) == []
