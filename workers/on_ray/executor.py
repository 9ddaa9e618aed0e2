"""RayExecutor: computes for a conductor on Ray: evaluator actors during search, one Tune run during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workers.on_ray.cluster import RayCluster
from workers.pools.executor import State
from workers.pools.pool import EvaluatorFactory, Pool
from workers.pools.process_child import Guard

if TYPE_CHECKING:
    from workers.training.parallel_training import Course, Ended  # importing it loads torch


class RayExecutor:
    """Implements workers.pools.executor.Executor.

    On a private Ray, the workers of one job share all CPUs. In a cluster, each worker takes one CPU, because the jobs
    of other conductors need the remaining CPUs.

    Args:
        address: host:port of a cluster's head; if None, a private Ray is used.
    """

    side_by_side = True

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        self._cluster = RayCluster(address, cpus)

    @property
    def state(self) -> State:
        """The cluster's state."""
        return self._cluster.state

    def start(self) -> None:
        """Start up in the background, as Executor.start does."""
        self._cluster.start()

    def pool(self, make_evaluator: EvaluatorFactory, processes: int, deadline_s: float, guard: Guard) -> Pool:
        """Make a pool, as Executor.pool does. It has at least one worker, even if `processes` is 0."""
        from workers.on_ray.pool import RayPool

        hold = self._cluster.hold()
        try:
            workers, cpus = self._room(processes)
            return RayPool(make_evaluator, workers, cpus, deadline_s, guard=guard, hold=hold)
        except BaseException:
            hold.release()
            raise

    def train(self, course: Course) -> Mapping[str, Ended]:
        """Train all networks of the course, as Executor.train does."""
        from workers.on_ray.training import trained

        hold = self._cluster.hold()
        try:
            workers, cpus = self._room(course.processes)
            return trained(course, workers, cpus)
        finally:
            hold.release()

    def close(self) -> None:
        """Close the cluster, as Executor.close does."""
        self._cluster.close()

    def _room(self, processes: int) -> tuple[int, int]:
        from workers.on_ray.pool import room

        return room(self._cluster.node_cpus(), max(1, processes), share=self._cluster.address is None)
