"""InTurn: a strategy that searches for several aims, with one instance for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search.candidate import Candidate
from search.errors import Infeasible
from search.evaluation import Evaluation
from search.problem import Problem
from search.strategy import Strategy


class InTurn:
    """Asks the instance that has asked for the fewest candidates so far; tells every instance every result.

    An instance whose aim cannot be met is left out; if none is left, its Infeasible is raised.

    Args:
        name: the strategy's name, which is the origin of its candidates.
        make: makes the instance of an aim; the instances' candidates must differ in their ids.
    """

    def __init__(self, name: str, aims: Sequence[Problem], make: Callable[[Problem, int], Strategy]) -> None:
        self._name = name
        self._own: dict[int, Strategy] = {}
        self._asked: dict[int, int] = {}
        self._seen: set[str] = set()
        for number, aim in enumerate(aims):
            try:
                self._own[number] = make(aim, number)
                self._asked[number] = 0
            except Infeasible:
                if not self._own and number == len(aims) - 1:
                    raise

    def ask(self, count: int) -> list[Candidate]:
        """Return at most `count` candidates of one instance.

        Raises:
            Infeasible: no instance finds a point within the limits of its aim.
        """
        for number in sorted(self._own, key=lambda each: (self._asked[each], each)):
            try:
                asked = self._own[number].ask(count)
            except Infeasible:
                del self._own[number]
                if not self._own:
                    raise
                continue
            if asked:
                self._asked[number] += len(asked)
                self._seen |= {each.id for each in asked}
                return asked
        return []

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        for candidate in (*(each.candidate for each in evaluations), *pending):
            self._count(candidate)
        for strategy in self._own.values():
            strategy.tell(evaluations, pending)

    def _count(self, candidate: Candidate) -> None:
        """Count a candidate of an earlier run. Its instance is not known; the turns were equal, so that any will do."""
        if candidate.origin == self._name and candidate.id not in self._seen and self._own:
            self._seen.add(candidate.id)
            self._asked[min(self._own, key=lambda each: (self._asked[each], each))] += 1
