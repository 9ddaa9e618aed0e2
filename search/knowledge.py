"""What a strategy knows: every evaluation told to it, by what was evaluated rather than by who asked.

Keeping knowledge by values is what makes restart, warm start and foreign evaluations the same thing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

from search.candidate import Candidate, Fidelity
from search.errors import InvalidInput
from search.evaluation import Evaluation, Status
from search.problem import Problem
from search.space import Values


def values_key(values: Values) -> str:
    """One string for equal values, in any order of the knobs."""
    return json.dumps(dict(values), sort_keys=True, separators=(",", ":"))


class Knowledge:
    """Evaluations of one fidelity and recipe by their values, what is in flight, and the next free id.

    Left out: other fidelities and recipes (not comparable), candidates with masks (not decided by their values
    alone), values that are not of this space; and borrowed weights, but for a whole training, of which they
    are only the start. FAILED, STOPPED and INFEASIBLE evaluations are known to be useless: they have no
    utility, and are not to be asked for again.
    """

    def __init__(self, problem: Problem, origin: str, seed: int, fidelity: Fidelity = "F2", recipe: str = "") -> None:
        self._problem = problem
        self._origin = origin
        self._prefix = f"{origin}-s{seed}-"
        self._fidelity: Fidelity = fidelity
        self._recipe = recipe
        self._utilities: dict[str, float | None] = {}
        self._evaluations: dict[str, Evaluation] = {}
        self._pending: dict[str, Values] = {}
        self.asked = 0

    def note(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        """Take in what `Strategy.tell` was given; the order does not matter."""
        for evaluation in evaluations:
            self._count(evaluation.candidate)
            if self._comparable(evaluation.candidate):
                self._record(evaluation)
        for candidate in pending:
            self._count(candidate)
        self._pending = {values_key(c.values): c.values for c in pending if self._comparable(c)}

    def candidate(self, values: Values, parents: tuple[str, ...] = (), weights_from: str | None = None) -> Candidate:
        """A new candidate with the next id, in flight from now on."""
        made = Candidate(
            f"{self._prefix}{self.asked:04d}",
            dict(values),
            origin=self._origin,
            parents=parents,
            fidelity=self._fidelity,
            recipe=self._recipe,
            weights_from=weights_from,
        )
        self.asked += 1
        self._pending[values_key(values)] = values
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
        found = self._evaluations.get(values_key(values))
        return (found.candidate.id,) if found else ()

    def completed(self) -> list[tuple[Values, float]]:
        """Every (values, utility) known, sorted, so that sums over them come out the same in any order."""
        return [
            (self._evaluations[key].candidate.values, utility)
            for key, utility in sorted(self._utilities.items(), key=lambda item: item[0])
            if utility is not None
        ]

    def evaluations(self) -> list[Evaluation]:
        """What is known of each values, however it ended, sorted by the values."""
        return [self._evaluations[key] for key in sorted(self._evaluations)]

    def running(self) -> list[Values]:
        """The values in flight, sorted."""
        return [values for _, values in sorted(self._pending.items(), key=lambda item: item[0])]

    def _count(self, candidate: Candidate) -> None:
        """Never give an id out again that was seen anywhere."""
        match = re.fullmatch(re.escape(self._prefix) + r"(\d+)", candidate.id)
        if match:
            self.asked = max(self.asked, int(match[1]) + 1)

    def _comparable(self, candidate: Candidate) -> bool:
        if candidate.fidelity != self._fidelity or candidate.recipe != self._recipe or candidate.masks:
            return False
        if candidate.weights_from and self._fidelity != "F4":
            return False
        try:
            self._problem.space.check(candidate.values)
        except InvalidInput:
            return False  # of another network or another choice of methods: nothing to learn from
        return True

    def _record(self, evaluation: Evaluation) -> None:
        key = values_key(evaluation.candidate.values)
        utility = self._utility(evaluation.status, evaluation.metrics)
        known = self._evaluations.get(key)
        # Two results for the same values (two seeds, a repeat after a failure): the better one, in any order.
        if known is None or self._rank(evaluation) < self._rank(known):
            self._utilities[key] = utility
            self._evaluations[key] = evaluation

    def _rank(self, evaluation: Evaluation) -> tuple[float, str]:
        utility = self._utility(evaluation.status, evaluation.metrics)
        return math.inf if utility is None else -utility, evaluation.candidate.id

    def _utility(self, status: Status, metrics: Mapping[str, float]) -> float | None:
        objective = self._problem.objective
        if status is not Status.COMPLETED or objective.metric not in metrics:
            return None
        return objective.utility(metrics)
