"""Executor: the interface through which a conductor computes. It makes pools and trains the networks of a train phase.

There is one implementation per way of computing: `LocalExecutor` uses this machine's child processes,
`workers.on_ray.executor.RayExecutor` uses Ray. A job does not know which executor it has; the results are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from workers.errors import InvalidInput
from workers.pools.in_process_pool import InProcessPool
from workers.pools.pool import EvaluatorFactory, Pool
from workers.pools.process_child import Guard
from workers.pools.process_pool import ProcessPool

if TYPE_CHECKING:
    from workers.training.parallel_training import Course, Ended  # importing it loads torch

State: TypeAlias = Literal["starting", "ok", "down"]


class Executor(Protocol):
    """Starts up in the background after `start`; call `pool` and `train` only while `state` is "ok"."""

    side_by_side: bool
    """True if `train` trains networks in parallel; else `train` returns {}, and the train phase trains the networks one
    by one.
    """

    @property
    def state(self) -> State: ...

    def start(self) -> None:
        """Start up in the background; return at once."""
        ...

    def pool(self, make_evaluator: EvaluatorFactory, processes: int, deadline_s: float, guard: Guard) -> Pool:
        """Make a pool of at most `processes` workers.

        Raises:
            PoolBroken: there is no machine to compute on.
        """
        ...

    def train(self, course: Course) -> Mapping[str, Ended]:
        """Train the networks of a course in parallel; called only if `side_by_side` is True.

        Returns:
            How the training of each network ended, by name.

        Raises:
            Halted: the user paused or cancelled the job.
            PoolBroken: no worker can be started.
        """
        ...

    def close(self) -> None:
        """End everything that this executor started. May be called twice."""
        ...


class LocalExecutor:
    """Evaluates in child processes of this process; the train phase itself trains networks one after another."""

    state: State = "ok"
    side_by_side = False

    def start(self) -> None:
        """Do nothing, because there is nothing to wait for."""

    def pool(self, make_evaluator: EvaluatorFactory, processes: int, deadline_s: float, guard: Guard) -> Pool:
        """Make a pool, as Executor.pool does. With 0 processes, the pool evaluates in the caller's thread."""
        return local_pool(make_evaluator, processes, deadline_s, guard)

    def train(self, course: Course) -> Mapping[str, Ended]:
        """Return {}, because the train phase trains the networks itself, one after another."""
        return {}

    def close(self) -> None:
        """Do nothing, because the pools end with their jobs."""


def local_pool(
    make_evaluator: EvaluatorFactory,
    processes: int,
    deadline_s: float = 300.0,
    guard: Guard = nullcontext,
) -> Pool:
    """Make a pool on this machine.

    Args:
        make_evaluator: picklable if `processes` > 0.
        processes: number of child processes; with 0, the caller's thread evaluates.
        deadline_s: seconds that one candidate may take; ignored without child processes.
        guard: entered around each evaluation; the host lock's `shared` lets a timing agent wait for a quiet machine.

    Raises:
        InvalidInput: `processes` is negative.
    """
    if processes < 0:
        raise InvalidInput("processes", processes, "must be 0 or more")
    if processes == 0:
        return InProcessPool(make_evaluator, guard)
    return ProcessPool(make_evaluator, processes, deadline_s, guard=guard)
