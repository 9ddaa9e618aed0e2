"""RayPool: long-lived evaluator actors on the nodes of a Ray cluster, supervised here.

Ray's own restarts are off, because with them, a call could block forever, or could run a second time unnoticed. If an
actor dies with its process or its node, the candidate in progress gets a second attempt, and the rest of the batch
returns to the queue. Everything happens in the calls of the one thread that uses the pool.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from types import TracebackType
from typing import Self

import workers.on_ray.environment  # isort: skip  # noqa: F401  # Ray reads it while it is imported
import ray
from ray import cloudpickle
from ray.exceptions import RayError

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.errors import ClusterDown, InvalidInput, NoRoom, PoolBroken, PoolClosed
from workers.evaluating.evaluate_safely import ended
from workers.on_ray.cluster import Hold
from workers.on_ray.worker import RayWorker
from workers.pools.pool import EvaluatorFactory
from workers.pools.process_child import Broken, Guard
from workers.pools.process_pool import ATTEMPTS, FAILED_STARTS

BATCH = 16
"""Maximum number of candidates per call."""
BATCH_S = 0.5
"""Seconds for which a batch should keep a worker busy: far longer than a call takes, and far shorter than a
cancellation may wait.
"""
ALL = 3600.0


class RayPool:
    """A pool of at most `workers` actors of `cpus` CPUs each. If the cluster has less room, there are fewer actors, but
    at least one.

    Args:
        make_evaluator: picklable; called once in each actor. The files that it loads must be visible on every node.
        workers: number of actors.
        cpus: CPUs of each actor; `room` finds numbers that fit a cluster.
        deadline_s: seconds that one candidate may take once it has started.
        start_s: seconds that an actor may take to find room and to make its evaluator.
        grace_s: seconds after a cancellation before the actor that works on the candidate is killed.
        guard: picklable; entered around each evaluation in the actor.
        hold: a hold on the cluster, released by `close`; None if Ray cannot be shut down while the pool is in use.
    """

    def __init__(
        self,
        make_evaluator: EvaluatorFactory,
        workers: int,
        cpus: int = 1,
        deadline_s: float = 300.0,
        start_s: float = 120.0,
        grace_s: float = 5.0,
        guard: Guard = nullcontext,
        hold: Hold | None = None,
    ) -> None:
        for name, value in (("workers", workers), ("cpus", cpus)):
            if value < 1:
                raise InvalidInput(name, value, "must be at least 1")
        # Pickle once, here: every later actor gets what the first actor got, even if the factory has changed since.
        self._packed: bytes = cloudpickle.dumps((make_evaluator, guard))
        self.capacity = workers
        self._hold = hold
        self._cpus = cpus
        self._deadline_s = deadline_s
        self._start_s = start_s
        self._grace_s = grace_s
        self._waiting: deque[Candidate] = deque()
        self._results: deque[Evaluation] = deque()
        self._inside: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._failed_starts = 0
        self._rest_until_s = 0.0
        self._usual_s = float("inf")
        """Seconds that the latest evaluation took."""
        self._broken: PoolBroken | None = None
        self._closed = False
        self._workers: list[RayWorker] = []
        self._guarded(self._staff)

    def submit(self, candidate: Candidate) -> None:
        """Queue a candidate, as Pool.submit does."""
        if self._closed:
            raise PoolClosed("submit: the pool is closed")
        if candidate.id in self._inside:
            raise InvalidInput("candidate", candidate.id, "is already in the pool")
        self._inside.add(candidate.id)
        self._waiting.append(candidate)
        if self._broken is None:
            self._guarded(self._assign)

    def next(self, timeout_s: float) -> Evaluation | None:
        """Return a finished evaluation, as Pool.next does."""
        end_s = time.monotonic() + timeout_s
        while self._inside and not self._results:
            if self._broken is not None:
                raise self._broken
            left_s = end_s - time.monotonic()
            self._guarded(partial(self._turn, max(0.0, left_s)))
            if left_s <= 0:
                break
        if not self._results:
            return None
        result = self._results.popleft()
        self._inside.discard(result.candidate.id)
        return result

    def cancel(self, candidate_id: str) -> None:
        """Give up on a candidate, as Pool.cancel does. A candidate in progress has `grace_s` seconds to end; after
        that, its actor is killed.
        """
        for candidate in [c for c in self._waiting if c.id == candidate_id]:
            self._waiting.remove(candidate)
            self._results.append(ended(candidate, Status.STOPPED, "cancelled"))
        for worker in self._workers:
            if any(candidate.id == candidate_id for candidate in worker.batch):
                worker.give_up(candidate_id)

    def close(self) -> None:
        """Close the pool, as Pool.close does."""
        self._closed = True
        with suppress(ClusterDown):  # the actors died with their Ray; a call to them would wait forever
            self._check()
            for worker in self._workers:
                worker.end()
        self._workers.clear()
        if self._hold is not None:
            self._hold.release()
        self._inside.clear()
        self._results.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self) -> None:
        if self._hold is not None:
            self._hold.check()

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run one step. An error in this step breaks the pool but fails no candidate, because Ray can be lost in many
        ways.
        """
        try:
            self._check()
            step()
        except PoolBroken as broken:
            self._broken = broken
            raise
        except Exception as error:
            self._broken = PoolBroken(f"Ray: {_first_line(error)}")
            raise self._broken from error

    def _turn(self, left_s: float) -> None:
        """Wait for a message or the next deadline, and handle whatever is ready."""
        self._staff()
        self._assign()
        self._listen(left_s)
        self._enforce_deadlines()

    def _staff(self) -> None:
        if time.monotonic() >= self._rest_until_s:
            while len(self._workers) < self.capacity:
                if self._hold is not None:
                    self._hold.check_head()
                self._workers.append(RayWorker(self._packed, self._cpus))

    def _assign(self) -> None:
        for worker in self._workers:
            if worker.state == "idle" and self._waiting:
                count = self._batch()
                worker.give([self._waiting.popleft() for _ in range(count)])

    def _batch(self) -> int:
        """Return how many short candidates keep a worker busy for BATCH_S, but no more than the worker's share."""
        share = -(-len(self._waiting) // len(self._workers))
        short = int(BATCH_S / self._usual_s) if self._usual_s > 0 else BATCH
        # A second attempt runs alone: if the actor is killed then, this candidate is the cause.
        again = next((i for i, c in enumerate(self._waiting) if self._attempts[c.id]), len(self._waiting))
        return max(1, min(share, short, BATCH, again))

    def _listen(self, left_s: float) -> None:
        due_s = min((-worker.late_s(*self._limits) for worker in self._workers), default=ALL)
        if len(self._workers) < self.capacity:
            due_s = min(due_s, self._rest_until_s - time.monotonic())
        by_news = {worker.news: worker for worker in self._workers if worker.news is not None}
        timeout_s = max(0.0, min(left_s, due_s, ALL))
        if not by_news:
            time.sleep(timeout_s)
            return
        ready, _ = ray.wait(list(by_news), num_returns=1, timeout=timeout_s, fetch_local=False)
        if ready:
            # Take everything that is ready first: a result that met its deadline counts even if the deadline has passed
            # by now.
            ready, _ = ray.wait(list(by_news), num_returns=len(by_news), timeout=0, fetch_local=False)
        for news in ready:
            self._hear(by_news[news])

    def _hear(self, worker: RayWorker) -> None:
        at_hand = worker.batch[0] if worker.batch else None
        try:
            message = worker.hear()
        except RayError as error:
            self._bury(worker, _first_line(error))
            return
        if isinstance(message, Broken):
            raise PoolBroken(message.reason)
        if isinstance(message, Evaluation):
            assert at_hand is not None
            self._attempts.pop(at_hand.id, None)
            self._usual_s = message.elapsed_s
            self._results.append(message)
        elif worker.state == "idle":
            self._failed_starts = 0

    def _bury(self, worker: RayWorker, cause: str) -> None:
        """Handle an actor that ended: its current candidate returns to the front of the queue, or fails for good."""
        self._workers.remove(worker)
        worker.end()
        if worker.state == "starting":
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise PoolBroken(f"{FAILED_STARTS} workers in a row ended before they were ready: {cause}")
        if not worker.batch:
            return
        at_hand = self._take_back(worker)
        self._attempts[at_hand.id] += 1
        if worker.cancelled_s is not None:
            self._results.append(ended(at_hand, Status.STOPPED, "cancelled"))
        elif self._attempts[at_hand.id] < ATTEMPTS:
            self._waiting.appendleft(at_hand)
        else:
            reason = f"its worker ended, {ATTEMPTS} times: {cause}"
            self._results.append(ended(at_hand, Status.FAILED, reason))

    def _take_back(self, worker: RayWorker) -> Candidate:
        """Return an ended actor's current candidate; the other candidates of its batch are queued again, or were
        cancelled.
        """
        at_hand, *rest = worker.batch
        for candidate in reversed(rest):
            if candidate.id in worker.unwanted:
                self._results.append(ended(candidate, Status.STOPPED, "cancelled"))
            else:
                self._waiting.appendleft(candidate)
        return at_hand

    def _enforce_deadlines(self) -> None:
        for worker in [w for w in self._workers if w.late_s(*self._limits) >= 0]:
            if worker.state == "starting":
                self._no_room(worker)
            elif worker.cancelled_s is not None:
                self._dismiss(worker, Status.STOPPED, "cancelled")
            else:
                self._dismiss(worker, Status.FAILED, f"timeout: not finished after {self._deadline_s:g} s")

    def _no_room(self, worker: RayWorker) -> None:
        """Give up on an actor that does not start, because Ray would let it wait forever.

        Raises:
            NoRoom: no other actor has started either.
        """
        if all(each.state == "starting" for each in self._workers):
            raise NoRoom(f"no worker with {self._cpus} CPUs came up within {self._start_s:g} s; {_room_left()}")
        self._workers.remove(worker)
        worker.end()
        self._rest_until_s = time.monotonic() + self._start_s

    def _dismiss(self, worker: RayWorker, status: Status, reason: str) -> None:
        """End an actor in the middle of a candidate, and return the candidate with this status and reason."""
        self._workers.remove(worker)
        worker.end()
        at_hand = self._take_back(worker)
        self._attempts.pop(at_hand.id, None)
        self._results.append(ended(at_hand, status, reason))

    @property
    def _limits(self) -> tuple[float, float, float]:
        return self._start_s, self._deadline_s, self._grace_s


def room(node_cpus: Sequence[int], workers: int, share: bool) -> tuple[int, int]:
    """Return how many workers, at most `workers`, fit on nodes with these CPUs, and how many CPUs each worker gets.

    Args:
        share: if True, all CPUs are divided among the workers; else each worker takes one CPU and leaves the remaining
            CPUs to others.

    Raises:
        PoolBroken: no worker fits.
    """

    def fitting(cpus: int) -> int:
        return sum(of_node // cpus for of_node in node_cpus)

    if not fitting(1):
        raise PoolBroken(f"the Ray cluster has no CPU: nodes with {list(node_cpus)}")
    count = min(workers, fitting(1))
    largest = max(node_cpus) if share else 1
    return count, next(cpus for cpus in range(largest, 0, -1) if fitting(cpus) >= count)


def _room_left() -> str:
    free = ray.available_resources().get("CPU", 0.0)
    return f"{free:g} of {ray.cluster_resources().get('CPU', 0.0):g} CPUs of the cluster are free"


def _first_line(error: Exception) -> str:
    """Return the line of Ray's text that says what happened to the actor; it follows a list of ids."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("The actor is dead")), lines[0] if lines else "")
    return f"{type(error).__name__}: {told.split(' Some common causes', 1)[0]}"
