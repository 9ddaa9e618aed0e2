"""RayWorker: a long-lived evaluator actor on a node of a cluster, and the driver's handle on it.

The actor makes its evaluator once, then takes batches of candidates and answers with a stream. For each candidate, the
stream first yields the candidate's id, when its evaluation and its deadline begin, and then the evaluation. So a batch
costs one call, every result arrives as soon as it exists, and the driver always knows which candidate is in progress.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeAlias

import workers.on_ray.environment  # isort: skip  # noqa: F401  # Ray reads it while it is imported
import ray
from ray.exceptions import RayError

from hw_profiles.child_environment import forget_settings
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.evaluating.evaluate_safely import attempt, ended
from workers.pools.malloc_settings import KEEPING
from workers.pools.pool import EvaluatorFactory
from workers.pools.process_child import Broken

RayState: TypeAlias = Literal["starting", "idle", "waiting", "busy"]
"""State `waiting`: the worker has a batch, but a timing holds the machine's lock, so no deadline runs."""


class Actor:
    """The object in the actor's process. Its calls run in threads, so that a cancellation need not wait for an
    evaluation.
    """

    def __init__(self, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # set before the factory imports torch, which reads it
        forget_settings()
        self._given_up: set[str] = set()
        self._lock = threading.Lock()

    def load(self, packed: bytes) -> Broken | None:
        """Make the evaluator. The constructor does not make it, because Ray keeps a constructor's arguments as long as
        the actor lives.
        """
        factory: EvaluatorFactory
        try:
            factory, self._guard = pickle.loads(packed)  # noqa: S301  # ours: made by the driver of this actor
            self._evaluator = factory()
        except Exception as error:
            return Broken(f"{type(error).__name__}: {error}")
        return None

    def evaluate(self, batch: Sequence[Candidate]) -> Iterator[str | Evaluation]:
        """Yield each candidate's id when its evaluation begins, then the evaluation. If the candidate was cancelled
        before, the evaluation is STOPPED.
        """
        for candidate in batch:
            with self._lock:
                dropped = candidate.id in self._given_up
                self._given_up.discard(candidate.id)
            if dropped:
                yield ended(candidate, Status.STOPPED, "cancelled")
                continue
            with self._guard():
                yield candidate.id
                evaluation = attempt(self._evaluator, candidate)
            yield evaluation

    def give_up(self, candidate_id: str) -> None:
        """Make sure that this candidate is not started."""
        with self._lock:
            self._given_up.add(candidate_id)


class RayWorker:
    """One actor and its current batch. An actor never restarts by itself; its owner makes a new one.

    Args:
        packed: (EvaluatorFactory, guard), pickled by the driver.
        cpus: number of CPUs that the actor takes, and of threads that its numeric libraries use.
    """

    def __init__(self, packed: bytes, cpus: int) -> None:
        actor = ray.remote(
            num_cpus=cpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"control": 1},
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": dict(KEEPING)},
        )(Actor)
        self.state: RayState = "starting"
        self.since_s = time.monotonic()
        self.batch: list[Candidate] = []
        """Candidates that have not come back, the current candidate first."""
        self.cancelled_s: float | None = None
        """Time at which the current candidate was cancelled."""
        self.unwanted: set[str] = set()
        """Ids of the batch's candidates that were cancelled."""
        self._actor: Any = actor.remote(cpus)
        self.news: Any = self._actor.load.remote(packed)
        """Ray's reference or generator to wait for; None while idle."""

    def give(self, batch: Sequence[Candidate]) -> None:
        """Hand over candidates; the worker must be idle."""
        self._enter("waiting")
        self.batch = list(batch)
        self.unwanted.clear()
        self.news = self._actor.evaluate.options(num_returns="streaming").remote(self.batch)

    def hear(self) -> Evaluation | Broken | None:
        """Receive the next message; return None if the message only changed the state.

        Raises:
            RayError: the actor is gone.
        """
        if self.state == "starting":
            broken: Broken | None = ray.get(self.news)
            self._rest()
            return broken
        try:
            message: str | Evaluation = ray.get(next(self.news))
        except StopIteration:
            self._rest()
            return None
        if isinstance(message, str):
            self._enter("busy")
            if message in self.unwanted:  # it began before the actor knew of the cancellation
                self.cancelled_s = self.since_s
            return None
        self.batch.pop(0)
        self.cancelled_s = None
        if self.batch:
            self._enter("waiting")
        return message

    def give_up(self, candidate_id: str) -> None:
        """Cancel a candidate of the batch; the current candidate may still finish by itself."""
        self.unwanted.add(candidate_id)
        if self.batch[0].id == candidate_id and self.cancelled_s is None:
            self.cancelled_s = time.monotonic()
        with suppress(RayError):  # a dead actor is noticed by its stream
            self._actor.give_up.options(concurrency_group="control").remote(candidate_id)

    def late_s(self, start_s: float, deadline_s: float, grace_s: float) -> float:
        """Return the seconds past this worker's current deadline (negative: time left)."""
        now_s = time.monotonic()
        limit_s = {"starting": start_s, "busy": deadline_s}.get(self.state, float("inf"))
        late_s = now_s - self.since_s - limit_s
        return late_s if self.cancelled_s is None else max(late_s, now_s - self.cancelled_s - grace_s)

    def end(self) -> None:
        """Kill the actor, whatever it is doing."""
        self.news = None
        with suppress(RayError, ValueError):  # the actor is already gone, with its node or its cluster
            ray.kill(self._actor)

    def _rest(self) -> None:
        self._enter("idle")
        self.news = None

    def _enter(self, state: RayState) -> None:
        self.state = state
        self.since_s = time.monotonic()
