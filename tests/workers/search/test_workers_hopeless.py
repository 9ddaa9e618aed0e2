"""A race spends nothing on options that cannot win, and says so once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from search import strategies
from search.candidate import Candidate
from search.space.settings import check_settings
from search.synthetic.network import PRECISION
from search.synthetic.replay import make_replay
from workers.search.race import Race


def test_no_strategy_asks_for_an_option_that_cannot_win() -> None:
    replay = make_replay(3)
    known = {**replay.problem.statistics["sensitivity"], PRECISION: np.array([0.92, 0.918])}
    problem = replace(replay.problem, statistics={**replay.problem.statistics, "sensitivity": known})
    families = {name: strategies.load(name) for name in ("tpe", "nsga2")}
    makers = {
        name: lambda given, family=family: family.make(given, check_settings(family.settings, {}), 0)
        for name, family in families.items()
    }
    race = Race(problem, makers)
    # A result of an earlier run, from before the option was known to be hopeless, harms no strategy.
    old = replay.evaluate(Candidate("old", problem.space.whole))
    race.start(problem, [old], [])
    for _ in range(12):
        asked = race.ask(1, waiting=False)
        assert asked is not None
        name, candidates = asked
        assert [candidate.values[PRECISION] for candidate in candidates] == ["int8"]
        for candidate in candidates:
            race.charge(name, candidate, paid=True)
        race.tell([replay.evaluate(candidate) for candidate in candidates], [])
    race.start(problem, [old], [])
    assert [line.text for line in race.lines if PRECISION in line.text] == [
        "precision fp32 is not searched: another option is faster at every width and loses no more."
    ]
