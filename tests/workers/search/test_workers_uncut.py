"""The uncut network is among the candidates of every search, in each precision that is within the limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search.candidate import Candidate
from search.evaluation import Status
from search.problem import Problem
from search.strategy import Strategy
from search.synthetic.network import PRECISION
from search.synthetic.replay import make_replay
from workers.errors import JobFailed
from workers.evaluating.evaluate_safely import ended
from workers.search.race import Race
from workers.search.uncut import Uncut

LIMIT = "latency_ms@small-cpu"


@pytest.mark.parametrize(("ratio", "precisions"), [(1.0, ["fp32", "int8"]), (0.7, ["int8"]), (0.4, [])])
def test_it_asks_for_what_is_within_the_limits_and_only_once(ratio: float, precisions: list[str]) -> None:
    replay = make_replay(3, ratios={LIMIT: ratio})
    asked = Uncut(replay.problem).ask(10)
    assert [each.values[PRECISION] for each in asked] == precisions
    whole = {**replay.problem.space.whole, PRECISION: ""}
    assert all({**each.values, PRECISION: ""} == whole for each in asked)
    again = Uncut(replay.problem)
    again.tell([replay.evaluate(each) for each in asked], [])
    assert again.ask(10) == []


def test_a_failure_is_not_repeated() -> None:
    problem = make_replay(3, ratios={LIMIT: 0.7}).problem
    uncut = Uncut(problem)
    (only,) = uncut.ask(1)
    uncut.tell([ended(only, Status.FAILED, "no")], [])
    assert uncut.ask(1) == []


def test_untrained_scores_that_nothing_is_compared_with_are_not_asked_for() -> None:
    problem = make_replay(3, ratios={LIMIT: 1.0}).problem
    assert Uncut(replace(problem, deciding="mean_iou")).ask(10) == []


class Broken(Strategy):
    def __init__(self, problem: Problem) -> None:
        raise ValueError("broken")


def test_it_opens_a_race_and_saves_none_whose_strategies_all_failed() -> None:
    replay = make_replay(3, ratios={LIMIT: 0.7})
    race = Race(replay.problem, {"broken": Broken})
    race.start(replay.problem, [], [])
    name, asked = race.ask(4, waiting=False) or ("", list[Candidate]())
    assert (name, [each.values[PRECISION] for each in asked]) == ("uncut", ["int8"])
    race.tell([replay.evaluate(each) for each in asked], [])
    assert race.ask(4, waiting=False) is None
    with pytest.raises(JobFailed, match="every strategy failed: broken"):
        _ = race.over
