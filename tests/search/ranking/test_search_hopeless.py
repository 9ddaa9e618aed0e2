"""Options that cannot win: found by estimates and sensitivities, and taken out without changing anything else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from search import strategies
from search.problem import Constraint, Problem
from search.ranking.hopeless import hopeless
from search.space.settings import check_settings
from search.synthetic.network import PRECISION
from search.synthetic.replay import make_replay, run

LIMIT = "latency_ms@small-cpu"


def with_precision(problem: Problem, fp32: float = 0.92, int8: float = 0.918) -> Problem:
    """The problem with a known sensitivity to precision."""
    sensitivity = {**problem.statistics["sensitivity"], PRECISION: np.array([fp32, int8])}
    return replace(problem, statistics={**problem.statistics, "sensitivity": sensitivity})


def test_a_slower_option_that_is_hardly_better_cannot_win_a_tight_limit() -> None:
    assert hopeless(with_precision(make_replay(3).problem)).options == {PRECISION: ("fp32",)}


@pytest.mark.parametrize(
    ("ratio", "int8"),
    [(1.0, 0.918), (0.4, 0.85)],
    ids=["within the limit uncut", "much better on its own"],
)
def test_an_option_that_may_win_stays(ratio: float, int8: float) -> None:
    problem = with_precision(make_replay(3, ratios={LIMIT: ratio}).problem, int8=int8)
    assert hopeless(problem).options == {}


def test_an_option_that_is_faster_anywhere_stays() -> None:
    problem = with_precision(make_replay(3).problem)
    estimate = problem.estimate

    def moody(batch):  # type: ignore[no-untyped-def]  # an estimate
        found = dict(estimate(batch))
        narrow = [values[PRECISION] == "int8" and values["stream0"] == min_width for values in batch]
        return {**found, LIMIT: np.where(narrow, 1e3, found[LIMIT])}

    min_width = problem.space.knobs[0].value(0)  # type: ignore[union-attr]  # a Choice
    assert hopeless(replace(problem, estimate=moody)).options == {}


def test_without_a_limit_or_with_another_objective_nothing_is_dropped() -> None:
    problem = with_precision(make_replay(3).problem)
    assert hopeless(replace(problem, constraints=())).options == {}
    assert hopeless(replace(problem, deciding="mean_iou")).options == {}


def test_of_two_equal_options_one_stays() -> None:
    problem = with_precision(make_replay(3).problem, int8=0.92)
    alike = replace(problem, constraints=(Constraint("flat", 1.0, "max"),))
    flat = replace(alike, estimate=lambda batch: {"flat": np.full(len(batch), 2.0)})
    assert hopeless(flat).options == {PRECISION: ("int8",)}


def test_a_narrower_problem_agrees_with_the_whole_problem() -> None:
    problem = with_precision(make_replay(3).problem)
    narrow = hopeless(problem).without(problem)
    rng = np.random.default_rng(0)
    points = [narrow.space.sample(rng) for _ in range(50)]
    assert {point[PRECISION] for point in points} == {"int8"}
    for metric, terms in narrow.terms.items():
        np.testing.assert_allclose(
            terms.latency_ms(narrow.space.levels_of(points)),
            problem.terms[metric].latency_ms(problem.space.levels_of(points)),
        )
    assert narrow.statistics["sensitivity"][PRECISION].tolist() == [0.918]
    np.testing.assert_allclose(narrow.proxy(points), problem.proxy(points))


@pytest.mark.parametrize("name", ["tpe", "nsga2", "greedy", "random", "uniform"])
def test_strategies_search_a_narrower_problem(name: str) -> None:
    replay = make_replay(3)
    problem = with_precision(replay.problem)
    narrow = replace(replay, problem=hopeless(problem).without(problem))
    family = strategies.load(name)
    done = run(family.make(narrow.problem, check_settings(family.settings, {}), 0), narrow, 12)
    assert done
    assert all(each.candidate.values[PRECISION] == "int8" for each in done)
