"""BestSoFar: announces the best predicted candidate of the search, and withdraws it if newer tables disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from search.metrics import METRICS
from search.problem import Problem
from search.ranking.pareto import best
from workers.problem.estimated import estimated
from workers.progress import Evaluated, Message, Summarised
from workers.reporting.summary import predicted_summary


class BestSoFar:
    """A callback of the loop that announces a new best candidate. `problem()` returns the current problem; all
    evaluations are compared by its estimates.
    """

    def __init__(self, problem: Callable[[], Problem], recorded: Sequence[Evaluated]) -> None:
        self._newest = problem
        self._problem: Problem | None = None
        self._evaluated = [each for each in recorded if each.evaluation.candidate.searched]
        self._leader: str | None = None
        self._renewed()

    def __call__(self, evaluated: Evaluated) -> Sequence[Message]:
        """Return a message with the best candidate if it changed; the message empties the slot if newer tables leave no
        such candidate.
        """
        self._evaluated.append(evaluated)
        newer = self._renewed()
        assert self._problem is not None
        leader = best([each.evaluation for each in self._evaluated], self._problem)
        before, self._leader = self._leader, None if leader is None else leader.candidate.id
        if leader is None:
            return (Summarised("best", None),) if before is not None else ()
        if self._leader == before and not newer:
            return ()
        shown = next(each for each in self._evaluated if each.evaluation is leader)
        return (Summarised("best", predicted_summary(METRICS[self._problem.deciding], shown)),)

    def _renewed(self) -> bool:
        """Re-estimate all evaluations if there is a newer problem; return True in this case."""
        newest = self._newest()
        if newest is self._problem:
            return False
        self._problem = newest
        by_it = estimated([each.evaluation for each in self._evaluated], newest)
        self._evaluated = [replace(old, evaluation=new) for old, new in zip(self._evaluated, by_it, strict=True)]
        leader = best([each.evaluation for each in self._evaluated], newest) if self._leader is None else None
        self._leader = leader.candidate.id if leader is not None else self._leader
        return True
