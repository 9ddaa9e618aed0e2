"""A strategy of a job with several devices searches for all of them together, and for each alone, in equal turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from search.candidate import Candidate
from search.errors import Infeasible
from search.evaluation import Evaluation
from search.metrics import latency_metric
from search.problem import Problem
from search.ranking.pareto import best
from search.synthetic.network import PRECISION
from search.synthetic.replay import make_replay
from workers.phases.search import makers
from workers.plan import Named
from workers.problem.aims import every_aim
from workers.search.in_turn import InTurn
from workers.search.race import Race
from workers.search.uncut import Uncut

CPU, GPU = latency_metric("small-cpu"), latency_metric("wide-gpu")
REPLAY = make_replay(3, ratios={CPU: 0.35, GPU: 0.9})


def raced(names: Sequence[str], evaluations: int) -> list[Evaluation]:
    """Race the strategies, one candidate at a time; the process dies after half of the evaluations."""
    done: list[Evaluation] = []
    for until in (evaluations // 2, evaluations):
        race = Race(REPLAY.problem, makers([Named(name) for name in names], 0))
        for each in done:
            race.charge(each.candidate.origin, each.candidate, paid=True)
        race.start(REPLAY.problem, done, [])
        while len(done) < until:
            asked = race.ask(1, waiting=False)
            assert asked is not None
            name, candidates = asked
            for candidate in candidates:
                race.charge(name, candidate, paid=True)
            told = [REPLAY.evaluate(candidate) for candidate in candidates]
            race.tell(told, [])
            done += told
    return done


def test_the_fast_device_gets_a_better_network_than_the_one_for_all() -> None:
    found = raced(["greedy", "tpe"], 40)
    whole, _, on_gpu = every_aim(REPLAY.problem)
    for_all, for_gpu = best(found, whole), best(found, on_gpu)
    assert for_all is not None
    assert for_gpu is not None
    assert for_gpu.metrics["accuracy"] > for_all.metrics["accuracy"] + 0.01
    searched = [each for each in found if each.candidate.origin != "uncut"]
    over = sum(whole.violation(each.metrics) > 0 for each in searched)
    assert 0.25 * len(searched) <= over <= 0.75 * len(searched), "neither aim starves the other"
    assert len({each.candidate.id for each in found}) == len(found)


def test_an_option_is_only_left_out_if_no_device_can_use_it() -> None:
    known = {**REPLAY.problem.statistics["sensitivity"], PRECISION: np.array([0.92, 0.918])}
    tight = replace(REPLAY.problem, statistics={**REPLAY.problem.statistics, "sensitivity": known})
    for ratio, left_out in ((1.0, False), (0.6, True)):
        bounds = [
            replace(each, bound=ratio * tight.original[GPU]) if each.metric == GPU else each
            for each in tight.constraints
        ]
        problem = replace(tight, constraints=tuple(bounds))
        race = Race(problem, {})
        race.start(problem, [], [])
        assert any(PRECISION in line.text for line in race.lines) == left_out


def test_the_uncut_network_is_asked_for_if_one_device_allows_it() -> None:
    loose = make_replay(3, ratios={CPU: 0.35, GPU: 1.0}).problem
    assert [each.values[PRECISION] for each in Uncut(loose).ask(10)] == ["fp32", "int8"]


class Scripted:
    """A strategy that always has candidates, or none, or an aim that cannot be met."""

    def __init__(self, aim: Problem, number: int, end: Exception | None = None) -> None:
        self.aim, self.number, self.end, self.count = aim, number, end, 0

    def ask(self, count: int) -> list[Candidate]:
        if self.end is not None:
            raise self.end
        self.count += count
        return [Candidate(f"s{self.number}-{self.count - i}", {"k": 1}, origin="scripted") for i in range(count)]

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self.count += sum(each.id.startswith(f"s{self.number}-") for each in pending)


def scripted(*ends: Exception | None) -> InTurn:
    return InTurn("scripted", [REPLAY.problem] * len(ends), lambda aim, number: Scripted(aim, number, ends[number]))


@pytest.mark.parametrize("count", [1, 2])
def test_turns_are_equal_also_across_a_restart(count: int) -> None:
    first = scripted(None, None)
    asked = [each for _ in range(4) for each in first.ask(count)]
    again = scripted(None, None)
    again.tell([], asked)
    again.tell([], asked)  # telling twice changes nothing
    asked += [each for _ in range(4) for each in again.ask(count)]
    assert Counter(each.id[:2] for each in asked) == {"s0": 4 * count, "s1": 4 * count}


def test_an_aim_that_cannot_be_met_ends_alone() -> None:
    impossible = Infeasible({"k": 1}, {}, 1.0)
    assert [each.id for each in scripted(impossible, None).ask(1)] == ["s1-1"]
    with pytest.raises(Infeasible):
        scripted(impossible, impossible).ask(1)
