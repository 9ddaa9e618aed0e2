"""local_pool: the pool of one machine, in this process or in child processes."""

from __future__ import annotations

from contextlib import nullcontext

from workers.errors import InvalidInput
from workers.pools.in_process_pool import InProcessPool
from workers.pools.pool import EvaluatorFactory, Pool
from workers.pools.process_child import Guard
from workers.pools.process_pool import ProcessPool


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
