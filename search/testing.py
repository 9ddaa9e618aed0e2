"""The contract of strategies as a pytest class. To run every test, subclass it and set `family_at`.

class TestMine(StrategyContract):
    family_at = "my_package.mine:STRATEGY"
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from math import comb
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.candidate import Candidate
from search.errors import Infeasible
from search.evaluation import Evaluation, Status
from search.knowledge import values_key
from search.metrics import latency_metric
from search.strategy import Strategy, StrategyFamily, notes_of
from search.synthetic.replay import Replay, make_replay, run

SEVERAL = {latency_metric("small-cpu"): 0.5, latency_metric("wide-gpu"): 0.9, "macs": 0.8, "size_bytes": 0.7}
"""Limits on the latencies of two devices, on the MACs and on the size, all at once."""

REPLAYS: dict[str, dict[str, Any]] = {
    "plain": {"knobs": 5, "levels": 5},
    "no precision knob": {"knobs": 4, "levels": 6, "precision": False},
    "no statistics": {"knobs": 5, "levels": 5, "statistics": False},
    "several limits": {"knobs": 6, "levels": 5, "ratios": SEVERAL},
    "eight evaluations": {"knobs": 12, "levels": 4, "evaluations": 8},
    "no limit": {"knobs": 3, "levels": 4, "ratios": {}},
}
"""Problems that every strategy must handle, as arguments of `make_replay`."""


def load_family(family_at: str) -> StrategyFamily:
    """Return the family at `package.module:NAME`."""
    module, _, name = family_at.partition(":")
    family = getattr(import_module(module), name)
    assert isinstance(family, StrategyFamily), f"{family_at} is {family!r}"
    return family


def transcript(family_at: str, seed: int, evaluations: int) -> list[dict[str, Any]]:
    """Return all proposals of a small search with a failure, a foreign evaluation and out-of-order results."""
    replay = make_replay(seed, knobs=4, levels=5, evaluations=evaluations)
    family = load_family(family_at)
    strategy = family.make(replay.problem, family.settings(), seed)
    strategy.tell([foreign(replay, seed)], [])
    asked: list[Candidate] = []
    while len(asked) < evaluations:
        batch = strategy.ask(3)
        if not batch:
            break
        told = [replay.evaluate(candidate) for candidate in batch]
        if not asked:
            told[0] = failed(batch[0])
        asked += batch
        strategy.tell(told[::-1], [])
    return [candidate.to_json() for candidate in asked]


def failed(candidate: Candidate) -> Evaluation:
    """Return a failed evaluation of the candidate."""
    return Evaluation(candidate, Status.FAILED, reason="the loss became NaN")


def foreign(replay: Replay, seed: int) -> Evaluation:
    """Return an evaluation of a candidate that another strategy proposed."""
    values = replay.problem.space.sample(np.random.default_rng([seed, 99]))
    return replay.evaluate(Candidate(f"other-{seed}", values, origin="other"))


def sign_test(wins: int, losses: int) -> float:
    """Return the probability of at least this many wins if both strategies are equally good; the caller drops ties."""
    n = wins + losses
    return sum(comb(n, k) for k in range(wins, n + 1)) / float(2**n)


class StrategyContract:
    """Tests of the contract of `Strategy`. Set `family_at`; if the default settings are slow, also set `overrides`."""

    family_at: ClassVar[str]
    overrides: ClassVar[dict[str, Any]] = {}

    @property
    def family(self) -> StrategyFamily:
        return load_family(self.family_at)

    def make(self, replay: Replay, seed: int = 0) -> Strategy:
        return self.family.make(replay.problem, self.family.settings(**self.overrides), seed)

    def test_family_explains_itself(self) -> None:
        family = self.family
        assert family.name
        assert family.summary
        assert family.source
        assert family.settings(**self.overrides) == family.settings(**self.overrides)

    @pytest.mark.parametrize("kind", REPLAYS)
    def test_reaches_a_feasible_best_within_the_budget(self, kind: str) -> None:
        replay = make_replay(3, **REPLAYS[kind])
        done = run(self.make(replay), replay)
        _check_asks(replay, [evaluation.candidate for evaluation in done])
        assert any(replay.problem.feasible(evaluation.metrics) for evaluation in done)

    @given(
        seed=st.integers(0, 10_000),
        knobs=st.integers(2, 6),
        levels=st.integers(2, 6),
        precision=st.booleans(),
        statistics=st.booleans(),
        ratio=st.floats(0.05, 1.1),
        evaluations=st.integers(1, 12),
        batch=st.integers(1, 6),
    )
    # Every subclass runs this function. Hypothesis objects to that only because of its example database.
    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    def test_satisfies_any_space(
        self,
        seed: int,
        knobs: int,
        levels: int,
        precision: bool,
        statistics: bool,
        ratio: float,
        evaluations: int,
        batch: int,
    ) -> None:
        replay = make_replay(
            seed,
            knobs=knobs,
            levels=levels,
            precision=precision,
            statistics=statistics,
            evaluations=evaluations,
            ratios={latency_metric("small-cpu"): ratio},
        )
        try:
            done = run(self.make(replay, seed), replay, batch=batch)
        except Infeasible as error:
            _check_nearest(replay, error)
        else:
            _check_asks(replay, [evaluation.candidate for evaluation in done])

    def test_an_impossible_limit_is_said_with_the_nearest(self) -> None:
        replay = make_replay(0, knobs=3, levels=3, ratios={latency_metric("small-cpu"): 0.001})
        with pytest.raises(Infeasible) as caught:
            run(self.make(replay), replay)
        _check_nearest(replay, caught.value)

    def test_asks_for_no_more_than_count(self) -> None:
        replay = make_replay(1, **REPLAYS["plain"])
        strategy = self.make(replay)
        for count in (1, 2, 5):
            asked = strategy.ask(count)
            assert len(asked) <= count
            strategy.tell([replay.evaluate(candidate) for candidate in asked], [])

    def test_same_asks_in_another_process(self) -> None:
        ours = transcript(self.family_at, 5, 12)
        code = (
            "import json; from search.testing import transcript; "
            f"print(json.dumps(transcript({self.family_at!r}, 5, 12)))"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        for hash_seed in ("1", "4242"):
            theirs = subprocess.run(
                [sys.executable, "-c", code],
                env={**environment, "PYTHONHASHSEED": hash_seed},
                capture_output=True,
                text=True,
                check=True,
            )
            assert json.loads(theirs.stdout) == ours

    def test_failed_evaluations_are_survived(self) -> None:
        replay = make_replay(2, **REPLAYS["plain"])
        strategy = self.make(replay)
        done: list[Evaluation] = []
        for number in range(40):
            asked = strategy.ask(2)
            if not asked:
                break
            told = [failed(c) if (number + i) % 2 else replay.evaluate(c) for i, c in enumerate(asked)]
            done += told
            strategy.tell(told, [])
        _check_asks(replay, [evaluation.candidate for evaluation in done])
        worked = [evaluation for evaluation in done if evaluation.status is Status.COMPLETED]
        assert any(replay.problem.feasible(evaluation.metrics) for evaluation in worked)

    def test_nothing_but_failures_ends_or_goes_on(self) -> None:
        replay = make_replay(2, knobs=4, levels=4, evaluations=10)
        strategy = self.make(replay)
        asked: list[Candidate] = []
        for _ in range(30):
            batch = strategy.ask(3)
            strategy.tell([failed(candidate) for candidate in batch], [])
            asked += batch
        _check_asks(replay, asked)

    def test_stopped_and_infeasible_evaluations_are_survived(self) -> None:
        replay = make_replay(4, **REPLAYS["plain"])
        strategy = self.make(replay)
        ends = [Status.STOPPED, Status.COMPLETED, Status.INFEASIBLE]
        asked: list[Candidate] = []
        for number in range(12):
            batch = strategy.ask(2)
            told = [replace(replay.evaluate(c), status=ends[(number + i) % 3]) for i, c in enumerate(batch)]
            strategy.tell(told, [])
            asked += batch
        _check_asks(replay, asked)

    def test_results_out_of_order(self) -> None:
        """Report one result at a time, the latest first, while the others are still running."""
        replay = make_replay(6, **REPLAYS["plain"])
        strategy = self.make(replay)
        asked: list[Candidate] = []
        running: list[Candidate] = []
        for _ in range(25):
            new = strategy.ask(3 - len(running))
            asked += new
            running += new
            if not running:
                break
            strategy.tell([replay.evaluate(running.pop())], running)
        _check_asks(replay, asked)

    def test_foreign_evaluations_are_tolerated(self) -> None:
        """Report results of another strategy, space or fidelity, results that lack required metrics, and one result
        twice.
        """
        replay = make_replay(7, **REPLAYS["plain"])
        strategy = self.make(replay)
        other_space = Candidate("other-space", {"elsewhere": 3}, origin="other")
        ours = foreign(replay, 1)
        told = [
            ours,
            ours,
            foreign(replay, 2),
            Evaluation(other_space, Status.COMPLETED, {"accuracy": 0.99}),
            replace(foreign(replay, 3), metrics={"size_bytes": 1.0}),
            replace(foreign(replay, 4), candidate=replace(foreign(replay, 4).candidate, fidelity="F4")),
        ]
        strategy.tell(told, [])
        done = run(strategy, replay)
        _check_asks(replay, [evaluation.candidate for evaluation in done])
        assert any(replay.problem.feasible(evaluation.metrics) for evaluation in done)

    @pytest.mark.parametrize("stop", [0, 1, 4, 9])
    def test_a_fresh_one_told_everything_goes_on_alike(self, stop: int) -> None:
        replay = make_replay(8, **REPLAYS["plain"])
        first = self.make(replay)
        done: list[Evaluation] = [foreign(replay, 1)]
        first.tell(done, [])
        for _ in range(stop):
            told = [replay.evaluate(candidate) for candidate in first.ask(2)]
            first.tell(told, [])
            done += told
        second = self.make(replay)
        order = np.random.default_rng(0).permutation(len(done))
        second.tell([done[i] for i in order], [])
        for _ in range(3):
            ours, theirs = first.ask(2), second.ask(2)
            assert [c.to_json() for c in theirs] == [c.to_json() for c in ours]
            told = [replay.evaluate(candidate) for candidate in ours]
            first.tell(told, [])
            second.tell(told, [])

    @pytest.mark.parametrize("kind", REPLAYS)
    def test_notes_are_sentences_that_stay(self, kind: str) -> None:
        replay = make_replay(3, **REPLAYS[kind])
        first = self.make(replay)
        done: list[Evaluation] = []
        said: tuple[str, ...] = ()
        for _ in range(4):
            told = [replay.evaluate(candidate) for candidate in first.ask(2)]
            before, said = said, tuple(notes_of(first))
            assert said[: len(before)] == before
            first.tell(told, [])
            done += told
        assert all(note[0].isupper() and note.endswith(".") for note in said)
        assert len(set(said)) == len(said)
        second = self.make(replay)
        second.tell(done, [])
        second.ask(2)
        first.ask(2)
        assert set(notes_of(second)) <= set(notes_of(first))

    def test_a_fresh_one_leaves_pending_candidates_alone(self) -> None:
        replay = make_replay(9, **REPLAYS["plain"])
        first = self.make(replay)
        pending = first.ask(3)
        second = self.make(replay)
        second.tell([], pending)
        _check_asks(replay, [*pending, *second.ask(3)])

    def test_telling_again_changes_nothing(self) -> None:
        replay = make_replay(10, **REPLAYS["plain"])
        once, twice = self.make(replay), self.make(replay)
        for _ in range(4):
            asked = once.ask(2)
            assert [c.to_json() for c in twice.ask(2)] == [c.to_json() for c in asked]
            told = [replay.evaluate(candidate) for candidate in asked]
            once.tell(told, [])
            twice.tell(told, [])
            twice.tell(told, [])

    def test_beats_random(self) -> None:
        if self.family.baseline:
            pytest.skip(f"{self.family.name} is a baseline and need not beat random")
        random = load_family("search.strategies.random:STRATEGY")
        wins = losses = 0
        for seed in range(20):
            replay = make_replay(seed, knobs=6, levels=6, evaluations=24)
            ours = _best(replay, run(self.make(replay, seed), replay))
            theirs = _best(replay, run(random.make(replay.problem, random.settings(), seed), replay))
            wins += ours > theirs
            losses += ours < theirs
        assert sign_test(wins, losses) < 0.05, f"{wins} wins and {losses} losses in 20"


def _check_nearest(replay: Replay, error: Infeasible) -> None:
    """Check that the nearest point lies in the space and that its violation agrees with its metrics."""
    replay.problem.space.check(error.nearest)
    assert error.violation > 0.0
    assert error.violation == pytest.approx(replay.problem.violation(error.metrics))


def _check_asks(replay: Replay, asked: Sequence[Candidate]) -> None:
    """Check that the candidates lie in the space, with no id used twice and no values proposed twice at one
    fidelity.
    """
    for candidate in asked:
        replay.problem.space.check(candidate.values)
    ids = [candidate.id for candidate in asked]
    assert len(set(ids)) == len(ids), "an id was used twice"
    keys = [(candidate.fidelity, values_key(candidate.values)) for candidate in asked]
    assert len(set(keys)) == len(keys), "the same values were asked for twice"


def _best(replay: Replay, done: Sequence[Evaluation]) -> float:
    """Return the true score of the feasible evaluation with the best observed score; 0 if no evaluation is feasible."""
    feasible = [evaluation for evaluation in done if replay.problem.feasible(evaluation.metrics)]
    best = max(feasible, key=lambda evaluation: evaluation.metrics["accuracy"], default=None)
    return 0.0 if best is None else replay.accuracy(best.candidate.values)
