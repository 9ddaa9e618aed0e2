"""Race: several strategies share one problem and, in equal parts, one budget. Each strategy is told every result.

The uncut network comes first (`workers.search.uncut`). Strategies do not see options that cannot win
(`search.ranking.hopeless`) on any device, nor results with such an option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import TypeAlias

from search.candidate import Candidate
from search.errors import Infeasible
from search.evaluation import Evaluation
from search.problem import Problem
from search.ranking.hopeless import Hopeless, hopeless
from search.strategy import Strategy, notes_of
from workers.errors import JobFailed
from workers.problem.aims import searched_aims
from workers.progress import Logged, Warned
from workers.search import uncut

MakeStrategy: TypeAlias = Callable[[Problem], Strategy]

FREE_ANSWERS = 10
"""Number of cached answers that a strategy may get per evaluation of the budget. Without this limit, a strategy that
only repeats itself would never end.
"""


class Entrant:
    """One strategy in the race, and how much of the budget it has used."""

    def __init__(self, name: str, make: MakeStrategy) -> None:
        self.name = name
        self.make = make
        self.strategy: Strategy | None = None
        self.paid = 0
        self.answered = 0
        self.over = False


class Race:
    """Decides which strategy asks next. A strategy that raises an exception leaves the race; the other strategies
    continue.
    """

    def __init__(self, problem: Problem, makers: Mapping[str, MakeStrategy]) -> None:
        self._problem = problem
        openers = {uncut.ORIGIN: Entrant(uncut.ORIGIN, uncut.Uncut)}
        self._entrants = {**openers, **{name: Entrant(name, make) for name, make in makers.items()}}
        self._makers = frozenset(makers)
        self._ids: set[str] = set()
        self._failures: dict[str, str] = {}
        self._hopeless = Hopeless({})
        self._notes: dict[str, None] = {}
        self.lines: list[Logged | Warned] = []
        """Log lines and warnings for users; the loop takes and emits them."""

    @property
    def notes(self) -> tuple[str, ...]:
        """The strategies' notes for readers of the result, each of them once."""
        return tuple(self._notes)

    @property
    def over(self) -> bool:
        """True if no strategy will ask again. Raises JobFailed if every strategy failed."""
        if not all(entrant.over for entrant in self._entrants.values()):
            return False
        if self._makers <= self._failures.keys():
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._failures.items())
            raise JobFailed("strategies_failed", "search", f"every strategy failed: {reasons}", "strategies")
        return True

    def start(self, problem: Problem, told: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        """Create every strategy again, for this problem, and pass it every result so far."""
        self._drop(reduce(Hopeless.common, map(hopeless, searched_aims(problem))))
        self._problem = self._hopeless.without(problem)
        known, running = self._useful(told, pending)

        def make(entrant: Entrant) -> None:
            entrant.strategy = entrant.make(self._problem)
            if known or running:
                entrant.strategy.tell(known, running)
            self._note(entrant)

        for entrant in self._running():
            self._guarded(entrant, make)

    def charge(self, name: str, candidate: Candidate, paid: bool) -> None:
        """Count a candidate of this strategy, either as evaluated for the strategy (`paid`) or as answered from the
        cache.
        """
        self._ids.add(candidate.id)
        if name in self._entrants:
            self._entrants[name].answered += 1
            self._entrants[name].paid += paid

    def ask(self, count: int, waiting: bool) -> tuple[str, list[Candidate]] | None:
        """Return at most `count` candidates of the strategy that has used the least budget, or None if no strategy asks
        for anything now.

        If `waiting` is True, results are still to come, so a strategy that asks for nothing now is not finished.
        """
        opener = self._entrants[uncut.ORIGIN]
        asked = [] if opener.over else self._guarded(opener, lambda entrant: self._asked(entrant, count))
        if asked:
            return opener.name, asked
        opener.over = True
        running = self._running()
        share = 1 if len(running) > 1 else count
        for entrant in sorted(running, key=lambda entrant: (entrant.paid, entrant.answered)):
            asked = self._guarded(entrant, lambda entrant: self._asked(entrant, share))
            if asked:
                return entrant.name, asked
            if not waiting:
                entrant.over = True
        return None

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        """Pass this result to every strategy, whichever strategy asked for it."""
        known, running = self._useful(evaluations, pending)

        def tell(entrant: Entrant) -> None:
            assert entrant.strategy is not None
            entrant.strategy.tell(known, running)

        for entrant in self._running():
            self._guarded(entrant, tell)

    def _drop(self, found: Hopeless) -> None:
        for name, options in found.options.items():
            if options != self._hopeless.options.get(name):
                gone = ", ".join(map(str, options))
                text = f"{name} {gone} is not searched: another option is faster at every width and loses no more."
                self.lines.append(Logged("info", text))
        self._hopeless = found

    def _useful(
        self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]
    ) -> tuple[list[Evaluation], list[Candidate]]:
        """Return the results and candidates without those of hopeless options."""
        running = [each for each in pending if not self._hopeless.has(each.values)]
        return self._hopeless.told(evaluations), running

    def _running(self) -> list[Entrant]:
        return [entrant for entrant in self._entrants.values() if not entrant.over]

    def _asked(self, entrant: Entrant, count: int) -> list[Candidate]:
        if entrant.answered >= FREE_ANSWERS * self._problem.evaluations:
            return []
        assert entrant.strategy is not None
        asked = entrant.strategy.ask(count)
        self._check(asked, count)
        self._note(entrant)
        return asked

    def _note(self, entrant: Entrant) -> None:
        """Warn of each sentence that this strategy has not said before in this race."""
        assert entrant.strategy is not None
        for note in notes_of(entrant.strategy):
            text = f"{entrant.name}: {note}"
            if text not in self._notes:
                self._notes[text] = None
                self.lines.append(Warned(text))

    def _check(self, asked: Iterable[Candidate], count: int) -> None:
        """Check each candidate asked for against the strategies' contract, because a repeated id would lose an
        evaluation.
        """
        fresh: set[str] = set()
        for candidate in asked:
            if candidate.id in self._ids or candidate.id in fresh:
                raise ValueError(f"it asked for id {candidate.id!r} twice")
            self._problem.space.check(candidate.values)
            fresh.add(candidate.id)
        if len(fresh) > count:
            raise ValueError(f"it asked for {len(fresh)} candidates but {count} were wanted")

    def _guarded(self, entrant: Entrant, step: Callable[[Entrant], list[Candidate] | None]) -> list[Candidate]:
        try:
            return step(entrant) or []
        except Infeasible as error:
            entrant.over = True
            self.lines.append(Logged("warning", f"Strategy {entrant.name} stopped: {error}"))
        except Exception as error:
            entrant.over = True
            self._failures[entrant.name] = f"{type(error).__name__}: {error}"
            text = f"Strategy {entrant.name} failed and left the race: {self._failures[entrant.name]}"
            self.lines.append(Logged("warning", text))
        return []
