"""Executor: what computes for a conductor: makes pools, and trains the networks of a train phase.

One for each way of computing: `LocalExecutor` on this machine's own processes, `workers.on_ray.executor.RayExecutor`
on Ray. A job knows neither: the same run gives the same results on both.
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
    from workers.training.parallel_training import Course, Ended  # torch comes with it

State: TypeAlias = Literal["starting", "ok", "down"]


class Executor(Protocol):
    """Comes up by itself after `start`; `pool` and `train` may only be called while `state` is "ok"."""

    side_by_side: bool
    """Whether `train` does anything."""

    @property
    def state(self) -> State: ...

    def start(self) -> None:
        """Begin to come up; returns at once."""
        ...

    def pool(self, make_evaluator: EvaluatorFactory, processes: int, deadline_s: float, guard: Guard) -> Pool:
        """A pool of at most `processes` workers.

        Raises:
            PoolBroken: there is nothing to compute on.
        """
        ...

    def train(self, course: Course) -> Mapping[str, Ended]:
        """Train the networks of a course side by side; only where `side_by_side`.

        Returns:
            How each ended, by name.

        Raises:
            Halted: the user wants it.
            PoolBroken: no worker comes up.
        """
        ...

    def close(self) -> None:
        """End what is ours. May be called twice."""
        ...


class LocalExecutor:
    """Child processes of this one; networks are trained one after another by the train phase itself."""

    state: State = "ok"
    side_by_side = False

    def start(self) -> None:
        """There is nothing to wait for."""

    def pool(self, make_evaluator: EvaluatorFactory, processes: int, deadline_s: float, guard: Guard) -> Pool:
        """As Executor.pool; 0 processes evaluate in the caller's thread."""
        return local_pool(make_evaluator, processes, deadline_s, guard)

    def train(self, course: Course) -> Mapping[str, Ended]:
        """Nothing: the train phase does it, one network after another."""
        return {}

    def close(self) -> None:
        """Its pools end with their jobs."""


def local_pool(
    make_evaluator: EvaluatorFactory,
    processes: int,
    deadline_s: float = 300.0,
    guard: Guard = nullcontext,
) -> Pool:
    """A pool on this machine.

    Args:
        make_evaluator: picklable when `processes` > 0.
        processes: 0 evaluates in the caller's thread, n in n child processes.
        deadline_s: seconds for one candidate; child processes only.
        guard: entered around each evaluation; the host lock's `shared` leaves a timing agent its quiet.

    Raises:
        InvalidInput: a negative number of processes.
    """
    if processes < 0:
        raise InvalidInput("processes", processes, "must be 0 or more")
    if processes == 0:
        return InProcessPool(make_evaluator, guard)
    return ProcessPool(make_evaluator, processes, deadline_s, guard=guard)
