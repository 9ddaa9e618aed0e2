"""What a strategy knows: every evaluation told to it, by what was evaluated rather than by who asked.

Keeping knowledge by values is what makes restart, warm start and foreign evaluations the same thing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from search.candidate import Candidate
from search.errors import InvalidInput
from search.evaluation import Evaluation, Status
from search.problem import Problem
from search.space import Values


def values_key(values: Values) -> str:
    """One string for equal values, in any order of the knobs."""
    return json.dumps(dict(values), sort_keys=True, separators=(",", ":"))


class Knowledge:
    """Utilities of F2 candidates by their values, what is in flight, and the next free id.

    Left out: other fidelities (not comparable), candidates with masks or borrowed weights (not decided by
    their values alone), values that are not of this space. FAILED, STOPPED and INFEASIBLE evaluations are
    known to be useless: they have no utility, and are not to be asked for again.
    """

    def __init__(self, problem: Problem, origin: str, seed: int) -> None:
        self._problem = problem
        self._origin = origin
        self._prefix = f"{origin}-s{seed}-"
        self._utilities: dict[str, float | None] = {}
        self._candidates: dict[str, Candidate] = {}
        self._pending: set[str] = set()
        self.asked = 0

    def note(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        """Take in what `Strategy.tell` was given; the order does not matter."""
        for evaluation in evaluations:
            self._count(evaluation.candidate)
            if self._comparable(evaluation.candidate):
                self._record(evaluation)
        for candidate in pending:
            self._count(candidate)
        self._pending = {values_key(c.values) for c in pending if self._comparable(c)}

    def candidate(self, values: Values, parents: tuple[str, ...] = ()) -> Candidate:
        """A new candidate with the next id, in flight from now on."""
        made = Candidate(f"{self._prefix}{self.asked:04d}", dict(values), origin=self._origin, parents=parents)
        self.asked += 1
        self._pending.add(values_key(values))
        return made

    def resolved(self, values: Values) -> bool:
        """Whether an evaluation of these values has ended, in whatever way."""
        return values_key(values) in self._utilities

    def pending(self, values: Values) -> bool:
        """Whether these values are in flight."""
        return values_key(values) in self._pending

    def fresh(self, values: Values) -> bool:
        """Whether these values are neither known nor in flight: worth asking for."""
        return not self.resolved(values) and not self.pending(values)

    def utility(self, values: Values) -> float | None:
        """The objective of these values, signed so that more is better; None where it is not known."""
        return self._utilities.get(values_key(values))

    def parents(self, values: Values) -> tuple[str, ...]:
        """The id under which these values were evaluated, as a candidate's `parents`; empty if unknown."""
        found = self._candidates.get(values_key(values))
        return (found.id,) if found else ()

    def completed(self) -> list[tuple[Values, float]]:
        """Every (values, utility) known, sorted, so that sums over them come out the same in any order."""
        return [
            (self._candidates[key].values, utility)
            for key, utility in sorted(self._utilities.items(), key=lambda item: item[0])
            if utility is not None
        ]

    def _count(self, candidate: Candidate) -> None:
        """Never give an id out again that was seen anywhere."""
        match = re.fullmatch(re.escape(self._prefix) + r"(\d+)", candidate.id)
        if match:
            self.asked = max(self.asked, int(match[1]) + 1)

    def _comparable(self, candidate: Candidate) -> bool:
        if candidate.fidelity != "F2" or candidate.masks or candidate.weights_from:
            return False
        try:
            self._problem.space.check(candidate.values)
        except InvalidInput:
            return False  # of another network or another choice of methods: nothing to learn from
        return True

    def _record(self, evaluation: Evaluation) -> None:
        key = values_key(evaluation.candidate.values)
        utility = self._utility(evaluation.status, evaluation.metrics)
        known = self._utilities.get(key)
        # Two results for the same values (two seeds, a repeat after a failure): the better one, in any order.
        if key not in self._utilities or (utility is not None and (known is None or utility > known)):
            self._utilities[key] = utility
            self._candidates[key] = evaluation.candidate

    def _utility(self, status: Status, metrics: Mapping[str, float]) -> float | None:
        objective = self._problem.objective
        if status is not Status.COMPLETED or objective.metric not in metrics:
            return None
        return objective.utility(metrics)
