"""loop: ask, store, submit, take, store, tell, until the budget or the time is used up or the strategies have no more
ideas.

An ask (a candidate that a strategy asks for) is emitted, and so made durable, before its work starts. An evaluation is
emitted before any strategy receives it. A run that dies at any point therefore leaves a record from which the next run
continues: new strategies receive every recorded evaluation, and recorded asks without an evaluation are submitted
again before anything new is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.problem import Problem
from workers.evaluating.evaluate_safely import ended
from workers.pools.pool import Pool
from workers.ports import Recorded, Signal
from workers.problem.estimated import estimated
from workers.progress import Asked, Evaluated, Message, Phased
from workers.search.race import MakeStrategy, Race

SearchEnd: TypeAlias = Literal["budget", "wall", "finished", "paused", "cancelled"]
TAKE_S = 0.5
"""Seconds to wait for a result before the clock and the user's signal are checked again."""

GIVEN_UP_AT = 2
"""Number of runs that may die while a candidate is open; after that, the candidate counts as failed. A pool gives a
candidate the same number of attempts.
"""
WHOLE_GIVEN_UP_AT = 6
"""The same limit for a full training run, which stays open for a long time and resumes from its last epoch."""


@dataclass(frozen=True)
class Searched:
    """The reason why the loop ended, all evaluations (recorded and new), and the total wall seconds used. `notes` has
    what the strategies say about their search.
    """

    end: SearchEnd
    evaluated: tuple[Evaluated, ...]
    spent_s: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """Settings and callbacks of a loop. If `wall_s` is None, there is no time limit. `split` names the images on which
    accuracy is measured.

    `refresh` is called before strategies are asked and returns a problem with newer estimates, or None; `notice` turns
    an evaluation into further messages of the same transaction, such as the best so far; `reached` returns the finished
    share of an open full training run (F4).
    """

    evaluations: int
    wall_s: float | None = None
    split: str = ""
    seed: int = 0
    table_epochs: Callable[[], Mapping[str, int]] = dict
    refresh: Callable[[], Problem | None] = lambda: None
    notice: Callable[[Evaluated], Sequence[Message]] = lambda evaluated: ()
    reached: Callable[[Candidate], float] = lambda candidate: 0.0
    clock_s: Callable[[], float] = time.monotonic


def loop(
    problem: Problem,
    makers: Mapping[str, MakeStrategy],
    pool: Pool,
    rules: Rules,
    emit: Callable[..., None],
    recorded: Recorded | None = None,
    signal: Callable[[], Signal] = lambda: "continue",
) -> Searched:
    """Search until a limit or a signal ends it. Metrics come from the pool's evaluations; estimates are added to them.

    Raises:
        JobFailed: every strategy failed.
        LeaseLost, PoolBroken: raised by `emit` and `pool`.
    """
    return _Loop(problem, makers, pool, rules, emit, recorded or Recorded(), signal).run()


class _Loop:
    def __init__(
        self,
        problem: Problem,
        makers: Mapping[str, MakeStrategy],
        pool: Pool,
        rules: Rules,
        emit: Callable[..., None],
        recorded: Recorded,
        signal: Callable[[], Signal],
    ) -> None:
        self._problem = problem
        self._pool = pool
        self._rules = rules
        self._emit = emit
        self._signal = signal
        self._recorded = recorded
        self._begun_s = rules.clock_s()
        self._race = Race(problem, makers)
        self._evaluated: list[Evaluated] = list(recorded.evaluations)
        self._cache: dict[str, Evaluation] = {}
        self._pending: dict[str, Asked] = {}
        self._followers: dict[str, list[Asked]] = {}
        """Map of each key to the Asked messages whose candidates wait for another candidate's evaluation of this
        key.
        """
        self._shares: dict[str, float] = {}
        """Map of the candidate id of each open full training run to the run's last reported share."""

    def run(self) -> Searched:
        self._replay()
        while (end := self._over()) is None:
            self._refresh()
            self._ask()
            self._take()
            self._say()
        self._say()
        return Searched(end, tuple(self._evaluated), self._spent_s(), self._race.notes)

    # replay of recorded results

    def _replay(self) -> None:
        for each in self._evaluated:
            self._race.charge(each.strategy, each.evaluation.candidate, paid=not each.cached)
            self._remember(each.evaluation)
        done = {each.evaluation.candidate.id for each in self._evaluated}
        open_asks = [asked for asked in self._recorded.asks if asked.candidate.id not in done]
        self._race.start(self._problem, self._told(), [asked.candidate for asked in open_asks])
        for asked in open_asks:
            died = self._recorded.takeovers.get(asked.candidate.id, 0)
            if died >= (WHOLE_GIVEN_UP_AT if asked.candidate.fidelity == "F4" else GIVEN_UP_AT):
                self._renounce(asked, died)
            else:
                self._give(asked)
        self._say()

    def _renounce(self, asked: Asked, died: int) -> None:
        """Fail a candidate if runs died repeatedly while it was open: it may be the cause, and must not be retried for
        ever.
        """
        self._race.charge(asked.strategy, asked.candidate, paid=True)
        reason = f"the run died {died} times while this candidate was open"
        evaluation = ended(asked.candidate, Status.FAILED, reason)
        self._remember(evaluation)
        self._finish([self._judged(asked.strategy, evaluation, cached=False)])

    def _told(self) -> list[Evaluation]:
        return estimated([each.evaluation for each in self._evaluated], self._problem)

    def _refresh(self) -> None:
        newer = self._rules.refresh()
        if newer is not None:
            self._problem = newer
            self._race.start(newer, self._told(), self._running())

    # one turn

    def _over(self) -> SearchEnd | None:
        wanted = self._signal()
        if wanted == "cancel":
            self._give_up()
            return "cancelled"
        done = not self._pending and (self._left() <= 0 or self._race.over)
        if not done and self._rules.wall_s is not None and self._spent_s() >= self._rules.wall_s:
            self._give_up()
            return "wall"
        if self._pending:
            return None
        if wanted == "pause":
            return "paused"
        if self._left() <= 0:
            return "budget"
        return "finished" if self._race.over else None

    def _ask(self) -> None:
        while self._signal() == "continue":
            count = min(self._pool.capacity - len(self._pending), self._left())
            if count <= 0:
                return
            asked = self._race.ask(count, waiting=bool(self._pending))
            if asked is None:
                return
            name, candidates = asked
            asks = [Asked(name, candidate) for candidate in candidates]
            self._emit(*asks)
            for ask in asks:
                self._give(ask)

    def _give(self, asked: Asked) -> None:
        """Answer a candidate from the cache, let it wait for an identical candidate that is running, or submit it."""
        key = self._key(asked.candidate)
        if key in self._cache:
            self._race.charge(asked.strategy, asked.candidate, paid=False)
            self._finish([self._borrowed(asked, self._cache[key])])
        elif key in self._followers:
            self._race.charge(asked.strategy, asked.candidate, paid=False)
            self._followers[key].append(asked)
        else:
            self._race.charge(asked.strategy, asked.candidate, paid=True)
            self._followers[key] = []
            self._pending[asked.candidate.id] = asked
            self._pool.submit(asked.candidate)

    def _take(self) -> None:
        evaluation = self._pool.next(TAKE_S)
        if evaluation is None:
            self._watch()
            return
        asked = self._pending.pop(evaluation.candidate.id)
        self._shares.pop(evaluation.candidate.id, None)
        key = self._key(evaluation.candidate)
        evaluation = self._estimated(evaluation)
        self._remember(evaluation)
        paid = self._judged(asked.strategy, evaluation, cached=False)
        self._finish([paid, *(self._borrowed(twin, evaluation) for twin in self._followers.pop(key))])

    def _finish(self, evaluated: Sequence[Evaluated]) -> None:
        self._evaluated += evaluated
        notices = [message for each in evaluated for message in self._rules.notice(each)]
        self._emit(*evaluated, *notices, self._progress())
        self._race.tell([each.evaluation for each in evaluated], self._running())

    def _watch(self) -> None:
        """Report the progress of open full training runs if it has changed, because such a run may take minutes."""
        told = sum(self._shares.values())
        for name, asked in self._pending.items():
            if asked.candidate.fidelity == "F4":
                # A second worker may start the training run again, but the reported share must never decrease.
                self._shares[name] = max(self._shares.get(name, 0.0), self._rules.reached(asked.candidate))
        if sum(self._shares.values()) > told:
            self._emit(self._progress())

    # parts

    def _judged(self, strategy: str, evaluation: Evaluation, cached: bool) -> Evaluated:
        feasible = evaluation.status is Status.COMPLETED and self._problem.feasible(evaluation.metrics)
        return Evaluated(strategy, evaluation, feasible, cached, dict(self._rules.table_epochs()))

    def _borrowed(self, asked: Asked, evaluation: Evaluation) -> Evaluated:
        own = replace(evaluation, candidate=asked.candidate, elapsed_s=0.0)
        return self._judged(asked.strategy, self._estimated(own), cached=True)

    def _estimated(self, evaluation: Evaluation) -> Evaluation:
        (renewed,) = estimated([evaluation], self._problem)
        return renewed

    def _key(self, candidate: Candidate) -> str:
        return candidate.key(self._problem.network, self._rules.split, self._rules.seed)

    def _remember(self, evaluation: Evaluation) -> None:
        if evaluation.status is not Status.STOPPED:
            self._cache.setdefault(self._key(evaluation.candidate), evaluation)

    def _running(self) -> list[Candidate]:
        twins = [asked.candidate for asks in self._followers.values() for asked in asks]
        return [asked.candidate for asked in self._pending.values()] + twins

    def _left(self) -> int:
        paid = sum(not each.cached for each in self._evaluated)
        return self._rules.evaluations - paid - len(self._pending)

    def _spent_s(self) -> float:
        return self._recorded.spent_s + self._rules.clock_s() - self._begun_s

    def _progress(self) -> Phased:
        total = self._rules.evaluations
        done = min(total, sum(not each.cached for each in self._evaluated) + sum(self._shares.values()))
        spent_s = self._spent_s()
        eta_s = spent_s / done * (total - done) if 0 < done < total else None
        return Phased("search", done, total, eta_s, spent_s)

    def _say(self) -> None:
        if self._race.lines:
            self._emit(*self._race.lines)
            self._race.lines.clear()

    def _give_up(self) -> None:
        """Cancel all open candidates; they stay recorded as asked."""
        for candidate_id in self._pending:
            self._pool.cancel(candidate_id)
