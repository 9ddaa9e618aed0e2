"""Lessons: the evaluations in the order in which they are learned, which a restart must repeat.

Learning depends on the order, but after a restart all evaluations are told at once. So the first candidate that is
asked for after evaluations were learned records their ids, in order, as its parents: it was made from them.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.candidate import Candidate
from search.evaluation import Evaluation
from search.knowledge import Knowledge, values_key


class Lessons:
    """The told evaluations that `known` can compare, each of different values, and which of them are learned."""

    def __init__(self, known: Knowledge) -> None:
        self._known = known
        self._waiting: dict[str, Evaluation] = {}
        self._parents: dict[str, tuple[str, ...]] = {}
        self._learned: set[str] = set()
        self._unrecorded: list[str] = []

    @property
    def count(self) -> int:
        """Number of evaluations learned."""
        return len(self._learned)

    def note(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        """Record the arguments of `Strategy.tell`."""
        for evaluation in evaluations:
            if self._known.comparable(evaluation.candidate):
                self._waiting.setdefault(evaluation.candidate.id, evaluation)
        for candidate in (*(evaluation.candidate for evaluation in evaluations), *pending):
            if candidate.id.startswith(self._known.prefix):
                self._parents[candidate.id] = candidate.parents

    def due(self) -> list[Evaluation]:
        """Return what is to be learned now, in order, and count it as learned: first what own candidates were made
        from, then the rest by id.
        """
        ids = [parent for _, parents in sorted(self._parents.items()) for parent in parents]
        found = []
        for evaluation in [self._waiting.pop(id_, None) for id_ in (*ids, *sorted(self._waiting))]:
            if evaluation is not None and (key := values_key(evaluation.candidate.values)) not in self._learned:
                self._learned.add(key)
                found.append(evaluation)
        recorded = set(ids)
        self._unrecorded += [e.candidate.id for e in found if e.candidate.id not in recorded]
        self._parents.clear()
        return found

    def parents(self) -> tuple[str, ...]:
        """Return the ids, in order, of what was learned since the last call; the next candidate must record them."""
        found, self._unrecorded = tuple(self._unrecorded), []
        return found
