"""RayPool: long-lived evaluator actors on the nodes of a Ray cluster, under our own supervision.

Ray restarts nothing here: with its restarts a call could block for ever, or run again unseen. An actor that
dies, with its process or its node, costs the candidate it worked on one second attempt; the rest of its batch
goes back to the queue. Everything happens in the calls of the one thread that uses the pool.
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
"""Candidates of one call at most."""
BATCH_S = 0.5
"""How long a batch should keep a worker busy: long beside a call, short beside a wait for a cancel."""
ALL = 3600.0


class RayPool:
    """At most `workers` actors of `cpus` CPUs each; fewer, but at least one, where the cluster has no more room.

    Args:
        make_evaluator: picklable; called once in each actor. What it loads are files that every node sees.
        workers: how many actors.
        cpus: what each takes; `room` finds numbers that a cluster has.
        deadline_s: seconds one candidate may take once it has begun.
        start_s: seconds an actor may take to find room and to make its evaluator.
        grace_s: seconds between a cancel and the end of the actor that works on the candidate.
        guard: picklable; entered around each evaluation in the actor.
        hold: on the cluster, let go of by `close`; None: nobody takes Ray away from under the pool.
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
        # Once, and here: what an actor gets later is what the first one got, whatever became of the factory.
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
        """What an evaluation takes, by those seen last."""
        self._broken: PoolBroken | None = None
        self._closed = False
        self._workers: list[RayWorker] = []
        self._guarded(self._staff)

    def submit(self, candidate: Candidate) -> None:
        """As Pool.submit."""
        if self._closed:
            raise PoolClosed("submit: the pool is closed")
        if candidate.id in self._inside:
            raise InvalidInput("candidate", candidate.id, "is in the pool already")
        self._inside.add(candidate.id)
        self._waiting.append(candidate)
        if self._broken is None:
            self._guarded(self._assign)

    def next(self, timeout_s: float) -> Evaluation | None:
        """As Pool.next."""
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
        """As Pool.cancel; a candidate that has begun has `grace_s` to end by itself, then its actor is killed."""
        for candidate in [c for c in self._waiting if c.id == candidate_id]:
            self._waiting.remove(candidate)
            self._results.append(ended(candidate, Status.STOPPED, "cancelled"))
        for worker in self._workers:
            if any(candidate.id == candidate_id for candidate in worker.batch):
                worker.give_up(candidate_id)

    def close(self) -> None:
        """As Pool.close."""
        self._closed = True
        with suppress(ClusterDown):  # actors died with their Ray; a call would wait for it
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
        """Take a step; whatever goes wrong in it is no candidate's fault, and Ray has many ways to be gone."""
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
        """Wait for news or the next deadline, and handle what there is."""
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
        """As many short candidates as keep a worker busy for a while, and never more than its share."""
        share = -(-len(self._waiting) // len(self._workers))
        short = int(BATCH_S / self._usual_s) if self._usual_s > 0 else BATCH
        # Alone the second time: whatever kills the actor then is this candidate's own.
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
            # Everything that is there already: results before the deadline that they met.
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
        """An actor ended by itself: the candidate at hand goes to the front of the queue, or fails for good."""
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
        """The candidate at hand of an actor that has ended; the others of its batch wait again, or were cancelled."""
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
        """An actor that does not come up waits, for all Ray says, for ever: others do its work, or nobody can."""
        if all(each.state == "starting" for each in self._workers):
            raise NoRoom(f"no worker with {self._cpus} CPUs came up within {self._start_s:g} s; {_room_left()}")
        self._workers.remove(worker)
        worker.end()
        self._rest_until_s = time.monotonic() + self._start_s

    def _dismiss(self, worker: RayWorker, status: Status, reason: str) -> None:
        """End an actor in the middle of its candidate, which gets this answer."""
        self._workers.remove(worker)
        worker.end()
        at_hand = self._take_back(worker)
        self._attempts.pop(at_hand.id, None)
        self._results.append(ended(at_hand, status, reason))

    @property
    def _limits(self) -> tuple[float, float, float]:
        return self._start_s, self._deadline_s, self._grace_s


def room(node_cpus: Sequence[int], workers: int, share: bool) -> tuple[int, int]:
    """How many workers, at most `workers`, and with how many CPUs each, fit on nodes of these CPUs.

    Args:
        share: divide all there is among them; else each takes one, and leaves the rest to others.

    Raises:
        PoolBroken: not one.
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
    """What became of the actor: Ray's text has it after a list of ids."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("The actor is dead")), lines[0] if lines else "")
    return f"{type(error).__name__}: {told.split(' Some common causes', 1)[0]}"
