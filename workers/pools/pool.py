"""Pool: where candidates are evaluated. The loop submits and takes; it never knows on what machine.

    pool.submit(a); pool.submit(b)      # at most `capacity` run, the others wait in order
    pool.next(timeout_s=1.0)            # -> an Evaluation of a or b, in any order; None: nothing yet
    pool.cancel(b.id)                   # b's evaluation arrives as STOPPED, unless it was quicker

Each submitted candidate comes back exactly once, whatever happens to the worker that had it: a killed
worker costs its candidate one second attempt, then the candidate comes back FAILED with the signal's name.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from search.candidate import Candidate
from search.evaluation import Evaluation


class Evaluator(Protocol):
    """Evaluates one candidate. Lives as long as its worker; everything slow is loaded when it is made."""

    def __call__(self, candidate: Candidate) -> Evaluation:
        """The evaluation; an exception becomes a FAILED one with the exception as its reason."""
        ...


class EvaluatorFactory(Protocol):
    """Makes an evaluator inside a worker. Must be picklable: it travels to child processes we start."""

    def __call__(self) -> Evaluator: ...


class Pool(Protocol):
    """A bounded set of workers. `capacity` is how many candidates can run at once (at least 1)."""

    capacity: int

    def submit(self, candidate: Candidate) -> None:
        """Queue a candidate.

        Raises:
            PoolClosed: after `close`.
            InvalidInput: a candidate with this id is in the pool already.
        """
        ...

    def next(self, timeout_s: float) -> Evaluation | None:
        """A finished evaluation; None after `timeout_s` seconds, or at once if nothing is in the pool.

        Raises:
            PoolBroken: no worker can be started.
        """
        ...

    def cancel(self, candidate_id: str) -> None:
        """Give this candidate up; it comes back STOPPED. Unknown or finished: nothing happens."""
        ...

    def close(self) -> None:
        """End every worker; what is in the pool is lost. May be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
