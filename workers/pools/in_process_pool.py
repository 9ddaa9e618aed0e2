"""InProcessPool: runs the evaluator in the caller's own thread, for tests and for machines with one core."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from types import TracebackType
from typing import Self

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.errors import InvalidInput, PoolBroken, PoolClosed
from workers.evaluating.evaluate_safely import attempt, ended
from workers.pools.pool import Evaluator, EvaluatorFactory
from workers.pools.process_child import Guard


class InProcessPool:
    """Evaluates inside `next`, in the order of submission.

    Nothing here can interrupt an evaluation: `timeout_s` and deadlines do not bound it, and a crash of native code ends
    the caller too. Child processes protect the caller from both.
    """

    capacity = 1

    def __init__(self, make_evaluator: EvaluatorFactory, guard: Guard = nullcontext) -> None:
        self._make_evaluator = make_evaluator
        self._guard = guard
        self._evaluator: Evaluator | None = None
        self._waiting: deque[Candidate] = deque()
        self._stopped: deque[Evaluation] = deque()
        self._closed = False

    def submit(self, candidate: Candidate) -> None:
        """Queue a candidate, as Pool.submit does."""
        if self._closed:
            raise PoolClosed("submit: the pool is closed")
        if any(other.id == candidate.id for other in self._waiting):
            raise InvalidInput("candidate", candidate.id, "is already in the pool")
        self._waiting.append(candidate)

    def next(self, timeout_s: float) -> Evaluation | None:
        """Return a finished evaluation, as Pool.next does. However, an evaluation that has started is never
        interrupted, no matter how long it takes.
        """
        if self._stopped:
            return self._stopped.popleft()
        if not self._waiting:
            return None
        evaluator = self._made()
        candidate = self._waiting.popleft()
        with self._guard():
            return attempt(evaluator, candidate)

    def cancel(self, candidate_id: str) -> None:
        """Give up on a candidate, as Pool.cancel does."""
        for candidate in [c for c in self._waiting if c.id == candidate_id]:
            self._waiting.remove(candidate)
            self._stopped.append(ended(candidate, Status.STOPPED, "cancelled"))

    def close(self) -> None:
        """Close the pool, as Pool.close does."""
        self._closed = True
        self._waiting.clear()
        self._evaluator = None

    def _made(self) -> Evaluator:
        if self._evaluator is None:
            try:
                self._evaluator = self._make_evaluator()
            except Exception as error:
                raise PoolBroken(f"{type(error).__name__}: {error}") from error
        return self._evaluator

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
