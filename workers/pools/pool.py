"""Pool: evaluates candidates. The loop submits candidates and takes evaluations; it never knows on which machine they
run.

    pool.submit(a); pool.submit(b)      # at most `capacity` run, the others wait in order
    pool.next(timeout_s=1.0)            # -> an Evaluation of a or b, in any order; None: nothing yet
    pool.cancel(b.id)                   # b's evaluation arrives as STOPPED, unless b finished first

Each submitted candidate comes back exactly once, whatever happens to its worker: if the worker is killed, the candidate
gets a second attempt; if that fails too, it comes back FAILED with the signal's name.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from search.candidate import Candidate
from search.evaluation import Evaluation


class Evaluator(Protocol):
    """Evaluates one candidate after another. It lives as long as its worker. Everything that is slow to load is loaded
    when the evaluator is made.
    """

    def __call__(self, candidate: Candidate) -> Evaluation:
        """Return the evaluation; an exception becomes a FAILED evaluation with the exception as its reason."""
        ...


class EvaluatorFactory(Protocol):
    """Makes an evaluator inside a worker. A factory must be picklable, because it is sent to child processes."""

    def __call__(self) -> Evaluator: ...


class Pool(Protocol):
    """A bounded set of workers. `capacity` is the number of candidates that can run at once (at least 1)."""

    capacity: int

    def submit(self, candidate: Candidate) -> None:
        """Queue a candidate.

        Raises:
            PoolClosed: the pool is closed.
            InvalidInput: a candidate with this id is already in the pool.
        """
        ...

    def next(self, timeout_s: float) -> Evaluation | None:
        """Return a finished evaluation; return None after `timeout_s` seconds, or at once if the pool is empty.

        Raises:
            PoolBroken: no worker can be started.
        """
        ...

    def cancel(self, candidate_id: str) -> None:
        """Give up on this candidate, which then comes back STOPPED. Does nothing if the candidate is unknown or
        finished.
        """
        ...

    def close(self) -> None:
        """End every worker; candidates in the pool are lost. May be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
