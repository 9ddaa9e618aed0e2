"""A strategy's knowledge: every evaluation reported to it, stored by its values, whichever strategy asked for it.

Restarts, warm starts and evaluations of other strategies therefore all work alike.
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
    """Return a string that is the same for equal values in any order of the knobs."""
    return json.dumps(dict(values), sort_keys=True, separators=(",", ":"))


class Knowledge:
    """Evaluations of one fidelity and recipe by their values, the values in flight, and the next free id.

    It ignores other fidelities and recipes, because they are not comparable; candidates with masks, because their
    values alone do not determine them; values outside this space; and candidates with weights of another candidate,
    unless a full training run only starts from these weights. FAILED, STOPPED and INFEASIBLE evaluations have no
    utility, and their values are not asked for again. If `masked` is True, it knows only the candidates of its origin,
    a strategy that gives equal values equal masks.
    """

    def __init__(
        self,
        problem: Problem,
        origin: str,
        seed: int,
        fidelity: Fidelity = "F2",
        recipe: str = "",
        masked: bool = False,
    ) -> None:
        self._problem = problem
        self._origin = origin
        self.prefix = f"{origin}-s{seed}-"
        self._fidelity: Fidelity = fidelity
        self._recipe = recipe
        self._masked = masked
        self._utilities: dict[str, float | None] = {}
        self._evaluations: dict[str, Evaluation] = {}
        self._pending: dict[str, Values] = {}
        self.asked = 0

    def note(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        """Record the arguments of `Strategy.tell`; their order does not matter."""
        for evaluation in evaluations:
            self._count(evaluation.candidate)
            if self.comparable(evaluation.candidate):
                self._record(evaluation)
        for candidate in pending:
            self._count(candidate)
        self._pending = {values_key(c.values): c.values for c in pending if self.comparable(c)}

    def candidate(self, values: Values, parents: tuple[str, ...] = (), weights_from: str | None = None) -> Candidate:
        """Return a new candidate with the next id; it counts as in flight from now on."""
        made = Candidate(
            f"{self.prefix}{self.asked:04d}",
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

    def comparable(self, candidate: Candidate) -> bool:
        """Return whether this knowledge takes evaluations of the candidate."""
        if candidate.fidelity != self._fidelity or candidate.recipe != self._recipe:
            return False
        if candidate.origin != self._origin if self._masked else candidate.masks:
            return False
        if candidate.weights_from and self._fidelity != "F4":
            return False
        try:
            self._problem.space.check(candidate.values)
        except InvalidInput:
            return False  # the candidate belongs to another network or to other methods, so it teaches nothing
        return True

    def resolved(self, values: Values) -> bool:
        """Return whether an evaluation of these values has ended, successfully or not."""
        return values_key(values) in self._utilities

    def pending(self, values: Values) -> bool:
        """Return whether these values are in flight."""
        return values_key(values) in self._pending

    def fresh(self, values: Values) -> bool:
        """Return whether these values are worth asking for: they are neither known nor in flight."""
        return not self.resolved(values) and not self.pending(values)

    def utility(self, values: Values) -> float | None:
        """Return the objective of these values with the sign that makes more better; None if it is not known."""
        return self._utilities.get(values_key(values))

    def parents(self, values: Values) -> tuple[str, ...]:
        """Return the id under which these values were evaluated, in the form of a candidate's `parents`; empty if the
        id is unknown.
        """
        found = self._evaluations.get(values_key(values))
        return (found.candidate.id,) if found else ()

    def completed(self) -> list[tuple[Values, float]]:
        """Return every known (values, utility), sorted, so that sums do not depend on the order of arrival."""
        return [
            (self._evaluations[key].candidate.values, utility)
            for key, utility in sorted(self._utilities.items(), key=lambda item: item[0])
            if utility is not None
        ]

    def evaluations(self) -> list[Evaluation]:
        """Return one evaluation for each known point, successful or not, sorted by values."""
        return [self._evaluations[key] for key in sorted(self._evaluations)]

    def running(self) -> list[Values]:
        """Return the values in flight, sorted."""
        return [values for _, values in sorted(self._pending.items(), key=lambda item: item[0])]

    def _count(self, candidate: Candidate) -> None:
        """Advance the next id past this candidate's id, so that no id is used twice."""
        match = re.fullmatch(re.escape(self.prefix) + r"(\d+)", candidate.id)
        if match:
            self.asked = max(self.asked, int(match[1]) + 1)

    def _record(self, evaluation: Evaluation) -> None:
        key = values_key(evaluation.candidate.values)
        utility = self._utility(evaluation.status, evaluation.metrics)
        known = self._evaluations.get(key)
        # Of two results for the same values (two seeds, or a repeat after a failure), keep the better one, whichever
        # comes first.
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
