"""ProcessPool: long-lived child processes under a small supervisor.

It replaces concurrent.futures, in which one killed child breaks the whole executor; here, only the candidate is
affected, and gets a second attempt. The supervisor is a thread that starts, feeds and watches the children and handles
their deaths. The children die with this thread (PR_SET_PDEATHSIG fires when the *thread* that forked ends).
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections import Counter, deque
from contextlib import nullcontext
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Self

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.errors import InvalidInput, PoolBroken, PoolClosed
from workers.evaluating.evaluate_safely import ended
from workers.pools.pool import EvaluatorFactory
from workers.pools.process_child import Broken, Guard
from workers.pools.process_worker import Worker

ATTEMPTS = 2
"""Maximum number of attempts at a candidate whose worker is killed, because the first kill may have had another
cause.
"""
FAILED_STARTS = 3


class ProcessPool:
    """A pool of `processes` children, each with its own evaluator and an equal share of the cores.

    Args:
        make_evaluator: picklable; called once in each child.
        processes: number of children.
        deadline_s: seconds that one candidate may take once it has started.
        start_s: seconds that a child may take to make its evaluator.
        guard: picklable; entered around each evaluation in the child.
    """

    def __init__(
        self,
        make_evaluator: EvaluatorFactory,
        processes: int,
        deadline_s: float = 300.0,
        start_s: float = 120.0,
        guard: Guard = nullcontext,
    ) -> None:
        if processes < 1:
            raise InvalidInput("processes", processes, "must be at least 1")
        # Pickle once, here: what cannot be pickled fails now, and every later child gets what the first child got, even
        # if the factory has changed in this process since.
        self._packed = bytes(ForkingPickler.dumps(make_evaluator))
        ForkingPickler.dumps(guard)
        self.capacity = processes
        self._guard = guard
        self._deadline_s = deadline_s
        self._start_s = start_s
        self._threads = max(1, len(os.sched_getaffinity(0)) // processes)
        self._context = multiprocessing.get_context("spawn")
        self._orders: queue.SimpleQueue[Candidate | str] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Evaluation | PoolBroken] = queue.SimpleQueue()
        self._inside: set[str] = set()
        self._broken: PoolBroken | None = None
        self._closing = threading.Event()
        self._wake, self._alarm = self._context.Pipe(duplex=False)
        self._workers: list[Worker] = []
        self._waiting: deque[Candidate] = deque()
        self._attempts: Counter[str] = Counter()
        self._failed_starts = 0
        self._supervisor = threading.Thread(target=self._supervise, name="pool", daemon=True)
        self._supervisor.start()

    def submit(self, candidate: Candidate) -> None:
        """Queue a candidate, as Pool.submit does."""
        if self._closing.is_set():
            raise PoolClosed("submit: the pool is closed")
        if candidate.id in self._inside:
            raise InvalidInput("candidate", candidate.id, "is already in the pool")
        self._inside.add(candidate.id)
        self._order(candidate)

    def next(self, timeout_s: float) -> Evaluation | None:
        """Return a finished evaluation, as Pool.next does."""
        if self._broken is not None:
            raise self._broken
        if not self._inside:
            return None
        try:
            result = self._results.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(result, PoolBroken):
            self._broken = result
            raise result
        self._inside.discard(result.candidate.id)
        return result

    def cancel(self, candidate_id: str) -> None:
        """Give up on a candidate, as Pool.cancel does; a child in the middle of the evaluation is killed and
        replaced.
        """
        if not self._closing.is_set():
            self._order(candidate_id)

    def close(self) -> None:
        """Close the pool, as Pool.close does."""
        if not self._closing.is_set():
            self._closing.set()
            self._alarm.send_bytes(b".")
            self._supervisor.join()
            self._alarm.close()
            self._wake.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _order(self, order: Candidate | str) -> None:
        self._orders.put(order)
        self._alarm.send_bytes(b".")

    # Everything below runs only in the supervisor thread.

    def _supervise(self) -> None:
        try:
            while not self._closing.is_set():
                self._staff()
                self._assign()
                self._listen()
                self._enforce_deadlines()
        except Exception as error:
            broken = error if isinstance(error, PoolBroken) else PoolBroken(f"supervisor: {error!r}")
            self._results.put(broken)
        finally:
            for worker in self._workers:
                worker.end()

    def _staff(self) -> None:
        while len(self._workers) < self.capacity:
            self._workers.append(Worker(self._context, self._packed, self._threads, self._guard))

    def _assign(self) -> None:
        for worker in self._workers:
            if worker.state == "idle" and self._waiting:
                self._failed_starts = 0
                worker.give(self._waiting.popleft())

    def _listen(self) -> None:
        """Wait for an order, a message, a death or the next deadline, and handle whatever is ready."""
        by_link = {worker.link: worker for worker in self._workers}
        by_sentinel = {worker.process.sentinel: worker for worker in self._workers}
        late_s = [worker.late_s(self._start_s, self._deadline_s) for worker in self._workers]
        timeout_s = min((max(0.0, -late) for late in late_s), default=float("inf"))
        ready = wait([self._wake, *by_link, *by_sentinel], None if timeout_s == float("inf") else timeout_s)
        if self._wake in ready:
            self._wake.recv_bytes()
            self._obey()
        # Messages that a child sent before its death count, so messages are handled before deaths.
        for link in (link for link in by_link if link in ready):
            self._hear(by_link[link])
        for sentinel in (sentinel for sentinel in by_sentinel if sentinel in ready):
            self._bury(by_sentinel[sentinel])

    def _obey(self) -> None:
        while not self._orders.empty():
            order = self._orders.get()
            if isinstance(order, Candidate):
                self._waiting.append(order)
            else:
                self._stop(order)

    def _stop(self, candidate_id: str) -> None:
        for candidate in [c for c in self._waiting if c.id == candidate_id]:
            self._waiting.remove(candidate)
            self._results.put(ended(candidate, Status.STOPPED, "cancelled"))
        for worker in [w for w in self._workers if w.candidate and w.candidate.id == candidate_id]:
            self._dismiss(worker, Status.STOPPED, "cancelled")

    def _hear(self, worker: Worker) -> None:
        try:
            while worker in self._workers and worker.link.poll():
                self._file(worker, worker.receive())
        except (EOFError, OSError):
            self._bury(worker)

    def _file(self, worker: Worker, message: Evaluation | Broken | None) -> None:
        if isinstance(message, Broken):
            raise PoolBroken(message.reason)
        if message is not None:
            self._attempts.pop(message.candidate.id, None)
            self._results.put(message)

    def _bury(self, worker: Worker) -> None:
        """Handle a child that died: its candidate returns to the front of the queue, or fails for good."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        starting, candidate = worker.state == "starting", worker.candidate
        cause = worker.end()
        if starting:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise PoolBroken(f"{FAILED_STARTS} workers in a row ended by {cause} before they were ready")
        if candidate is None:
            return
        self._attempts[candidate.id] += 1
        if self._attempts[candidate.id] < ATTEMPTS:
            self._waiting.appendleft(candidate)
        else:
            reason = f"its worker ended by {cause}, {ATTEMPTS} times"
            self._results.put(ended(candidate, Status.FAILED, reason))

    def _enforce_deadlines(self) -> None:
        for worker in list(self._workers):
            if worker.late_s(self._start_s, self._deadline_s) < 0:
                continue
            if worker.state == "starting":
                self._bury(worker)
            else:
                self._dismiss(worker, Status.FAILED, f"timeout: not finished after {self._deadline_s:g} s")

    def _dismiss(self, worker: Worker, status: Status, reason: str) -> None:
        """End a child in the middle of a candidate, and return the candidate with this status and reason."""
        assert worker.candidate is not None
        self._workers.remove(worker)
        worker.end()
        self._attempts.pop(worker.candidate.id, None)
        self._results.put(ended(worker.candidate, status, reason))
