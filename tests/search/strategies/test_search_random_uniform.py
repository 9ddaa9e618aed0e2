"""What is particular to the two baselines; the contract is in test_search_strategies.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from search.candidate import Candidate
from search.errors import Infeasible, InvalidInput
from search.problem import Constraint, Objective, Problem
from search.space import Choice, Float, Int, Space, Subset, Values
from search.strategies.random import Random
from search.strategies.random import Settings as RandomSettings
from search.strategies.uniform import Settings as UniformSettings
from search.strategies.uniform import Uniform
from search.synthetic.replay import make_replay, run
from search.testing import failed


def _problem(space: Space, macs: Any, bound: float) -> Problem:
    def estimate(batch: Sequence[Values]) -> dict[str, Any]:
        return {"macs": np.array([macs(values) for values in batch], dtype=float)}

    return Problem(space, (Objective("accuracy", "max"),), (Constraint("macs", bound, "max"),), estimate)


@pytest.mark.parametrize("ratio", [0.8, 0.3, 0.12])
def test_random_stays_under_the_limit_however_tight(ratio: float) -> None:
    replay = make_replay(0, knobs=10, levels=8, ratios={"latency_ms@small-cpu": ratio})
    asked = Random(replay.problem, RandomSettings(), 0).ask(20)
    assert len(asked) == 20
    assert (replay.problem.violations([candidate.values for candidate in asked]) == 0.0).all()


def test_random_ends_when_the_space_is_used_up() -> None:
    problem = _problem(Space((Int("x", 0, 3),)), lambda v: v["x"], 2.0)
    asked = Random(problem, RandomSettings(), 0).ask(10)
    assert sorted(int(c.values["x"]) for c in asked) == [0, 1, 2]  # type: ignore[arg-type]  # an Int


def test_random_searches_every_kind_of_knob() -> None:
    space = Space((Float("f", 0.0, 1.0), Subset("s", 6), Choice("c", ("a", "b", "c"), False)))
    problem = _problem(space, lambda v: v["f"] + len(v["s"]), 3.0)
    asked = Random(problem, RandomSettings(), 0).ask(15)
    assert len(asked) == 15
    for candidate in asked:
        space.check(candidate.values)
    assert {candidate.values["c"] for candidate in asked} == {"a", "b", "c"}


def test_random_gives_up_after_its_batches_with_the_nearest() -> None:
    calls = []

    def macs(values: Values) -> float:
        calls.append(values)
        return 10.0 + float(values["x"])  # type: ignore[arg-type]  # an Int

    problem = _problem(Space((Int("x", 0, 9),)), macs, 5.0)
    with pytest.raises(Infeasible, match=r"exceeds them by 100\.0% \(macs 10\)") as caught:
        Random(problem, RandomSettings(batch=8, batches=4), 0).ask(1)
    assert caught.value.nearest == {"x": 0}
    assert len(calls) <= 4 * 8 + 1


def test_uniform_takes_the_largest_ratio_of_each_precision() -> None:
    widths = (4, 8, 12, 16)
    space = Space((Choice("a", widths, True), Choice("b", widths, True), Choice("p", ("fp32", "int8"), False)))
    problem = _problem(space, lambda v: (v["a"] + v["b"]) * (0.5 if v["p"] == "int8" else 1.0), 16.0)
    asked = Uniform(problem, UniformSettings(), 0).ask(2)
    assert [c.values for c in asked] == [{"a": 16, "b": 16, "p": "int8"}, {"a": 8, "b": 8, "p": "fp32"}]


def test_uniform_is_not_misled_by_a_latency_that_is_not_monotone() -> None:
    space = Space((Choice("a", (1, 2, 3, 4, 5, 6, 7, 8), True),))
    problem = _problem(space, lambda v: 1.0 if v["a"] == 7 else float(v["a"]), 2.0)
    assert Uniform(problem, UniformSettings(), 0).ask(1)[0].values == {"a": 7}


def test_uniform_asks_for_neighbours_only_when_there_is_room() -> None:
    space = Space((Choice("a", (1, 2, 3, 4), True),))
    problem = _problem(space, lambda v: v["a"], 3.0)
    narrow, wide = Uniform(problem, UniformSettings(), 0), Uniform(problem, UniformSettings(), 0)
    assert [c.values["a"] for c in narrow.ask(1)] == [3]
    assert narrow.ask(1) == []
    assert [c.values["a"] for c in wide.ask(9)] == [3, 2, 1]


def test_uniform_falls_back_on_neighbours_when_the_best_fails() -> None:
    problem = _problem(Space((Choice("a", (1, 2, 3, 4), True),)), lambda v: v["a"], 3.0)
    strategy = Uniform(problem, UniformSettings(), 0)
    strategy.tell([failed(candidate) for candidate in strategy.ask(1)], [])
    assert [c.values["a"] for c in strategy.ask(1)] == [2]


def test_uniform_with_many_unordered_knobs_keeps_them_alike() -> None:
    knobs = tuple(Choice(f"p{i}", ("fp32", "int8"), False) for i in range(10))
    problem = _problem(Space(knobs), lambda v: sum(x == "fp32" for x in v.values()), 10.0)
    asked = Uniform(problem, UniformSettings(), 0).ask(5)
    assert [set(c.values.values()) for c in asked] == [{"fp32"}, {"int8"}]


def test_uniform_refuses_a_subset_and_names_it() -> None:
    with pytest.raises(InvalidInput, match="units"):
        Uniform(_problem(Space((Subset("units", 3),)), len, 1.0), UniformSettings(), 0)


def test_uniform_knows_what_another_asked_for() -> None:
    replay = make_replay(0, knobs=3, levels=3)
    first = Uniform(replay.problem, UniformSettings(), 0)
    done = run(first, replay)
    second = Uniform(replay.problem, UniformSettings(), 1)
    renamed = [Candidate(f"x-{e.candidate.id}", e.candidate.values) for e in done]
    second.tell([replay.evaluate(candidate) for candidate in renamed], [])
    assert second.ask(3) == []
