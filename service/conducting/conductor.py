"""The conductor: leases jobs from the store and runs them one at a time until it is told to stop.

The job runs in a thread; the main thread renews the lease and tells the store that this conductor is alive.
However this process ends, another conductor continues the job: after SIGTERM at once, after SIGKILL when the
lease has expired.

    python -m service.conducting.conductor      as a child of `netlathe serve`; it ends when its stdin closes
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy.exc import OperationalError

from hw_profiles.child_environment import forget_settings
from hw_profiles.lifeline import watch_parent
from service.conducting.run import Ending, Run, of_error
from service.conducting.store_ports import StorePorts
from service.files.blobs import Blobs
from service.jobs.plan import plan
from service.jobs.warnings import answered
from service.settings import Settings
from service.store.engine import Store, make_engine
from service.store.jobs import asks, checkpoints, conductors, job_leases, jobs
from service.store.jobs.job_leases import Held
from service.store.jobs.states import FINAL
from workers.errors import LeaseLost
from workers.plan import Effort, JobPlan
from workers.pools.executor import Executor, LocalExecutor
from workers.ports import Outcome, Ports

log = logging.getLogger(__name__)

IDLE_S = 0.5
"""Interval at which an idle conductor looks for a job."""
TICK_S = 0.1
GRACE_S = 8.0
"""Time that a run has to reach a stopping point when this conductor shuts down. After this time, the job is given back
in its current state.
"""

CRASH_REST_S = 5.0
LONGEST_CRASH_REST_S = 120.0

GIVEN_BACK = (("info", "the server stopped while this job ran; the job will continue once a server runs again"),)
"""Line written to the log of a job that is given back. It replaces the run's own line, which would say that the user
paused the job.
"""

RunJob = Callable[[JobPlan, Ports], Outcome]


def crash_rest_s(crashes: int) -> float:
    """Return the wait after a job's `crashes`-th machine failure in a row. Each wait is twice as long as the one
    before.

    A full disk or memory takes time to become free again, and an operator has to notice the failure.
    """
    return min(CRASH_REST_S * 2.0 ** min(crashes - 1, 10), LONGEST_CRASH_REST_S)


class Conductor:
    """Claims and runs jobs while its executor is up, until `stopping` is set. The default executor uses local
    processes.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        blobs: Blobs,
        stopping: threading.Event,
        executor: Executor | None = None,
    ) -> None:
        self.id = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"
        self.stopping = stopping
        self._settings = settings
        self._store = store
        self._blobs = blobs
        self._executor = executor or LocalExecutor()
        self._seen_s = -math.inf
        self._said: conductors.Executor | None = None

    def work(self, load: Callable[[], RunJob]) -> None:
        """Run jobs until `stopping` is set. `load` returns workers.job.run, or a replacement in tests."""
        try:
            self._be_seen("starting")
            self._executor.start()
            self._run_job = load()
            while not self.stopping.is_set():
                state = self._executor.state
                self._be_seen(state)
                held = self._claim() if state == "ok" else None
                if held is None:
                    self.stopping.wait(IDLE_S)
                else:
                    self._conduct(held)
        finally:
            self._leave()

    def _claim(self) -> Held | None:
        try:
            with self._store.begin() as tx:
                held = job_leases.claim(tx, self.id, self._settings.lease_s, self._settings.max_crashes)
                if held is not None and held.takeover:
                    asks.interrupted(tx, held.job_id)
                return held
        except OperationalError:
            log.warning("the store did not answer; this conductor will ask for jobs again")
            return None

    def _conduct(self, held: Held) -> None:
        log.info("job %s: claimed, epoch %d", held.job_id, held.epoch)
        try:
            run = self._begin(held)
        except Exception as error:
            self._settle(held, of_error(error))
            return
        given_up_s = time.monotonic() + GRACE_S
        while not run.done.wait(TICK_S):
            now_s = time.monotonic()
            if not self.stopping.is_set():
                given_up_s = now_s + GRACE_S
            elif now_s >= given_up_s:
                self._settle(held, Ending("queued", lines=GIVEN_BACK))
                return
            if not self._keep(held):
                run.lose()
        self._settle(held, run.ending)

    def _begin(self, held: Held) -> Run:
        work_dir = self._settings.data_dir / "jobs" / held.job_id
        work_dir.mkdir(parents=True, exist_ok=True)
        with self._store.read() as tx:
            made = plan(tx, held.job_id, jobs.get(tx, held.job_id).request, self._effort())
        ports = StorePorts(
            self._store,
            self._blobs,
            held,
            work_dir,
            offline_s=self._settings.device_offline_s,
            stopping=self.stopping,
        )
        return Run(self._run_job, made, ports).start()

    def _effort(self) -> Effort:
        return Effort(processes=self._settings.job_processes)

    def _keep(self, held: Held) -> bool:
        """Renew the lease when it is due; return False once another conductor has the job."""
        if time.monotonic() - self._seen_s < self._settings.renew_s:
            return True
        try:
            with self._store.begin() as tx:
                job_leases.renew(tx, held, self._settings.lease_s)
        except LeaseLost:
            return False
        except OperationalError:
            log.warning("job %s: the lease could not be renewed; trying again", held.job_id)
            return True
        self._be_seen(self._executor.state)
        return True

    def _settle(self, held: Held, ending: Ending | None) -> None:
        """Store the state in which the run ended, unless another conductor has taken over the job.

        If the store does not answer, the lease expires, and the job continues from its recorded state.
        """
        if ending is None:
            return
        try:
            self._end(held, ending)
        except LeaseLost:
            log.warning("job %s: another conductor took it before its end was recorded", held.job_id)
        except OperationalError:
            log.warning("job %s: its end could not be recorded; a conductor will continue it", held.job_id)

    def _end(self, held: Held, ending: Ending) -> None:
        given_back = ending.state == "paused" and self._ended_by_us(held)
        state, said = ("queued", GIVEN_BACK) if given_back else (ending.state, ending.lines)
        # Files of a job that failed because of a fault of Netlathe are kept for a while for debugging. Housekeeping
        # deletes them.
        done = state in FINAL and (ending.values.get("failure") or {}).get("code") != "internal"
        crashes = 0
        with self._store.begin() as tx:
            values = dict(ending.values)
            if values.get("verdict") is not None:
                values["warnings"] = answered(jobs.get(tx, held.job_id).warnings)
            for level, text in said:
                tx.emit(jobs.topic(held.job_id), "log.line", {"level": level, "text": text})
            if ending.machine_failure is not None:
                asks.interrupted(tx, held.job_id)
                crashes = job_leases.crash(tx, held, self._settings.max_crashes, ending.machine_failure)
            else:
                job_leases.end(tx, held, state, **values)
            if done:
                checkpoints.forget(tx, held.job_id)
        log.info("job %s: %s", held.job_id, state)
        if done:
            shutil.rmtree(self._settings.data_dir / "jobs" / held.job_id, ignore_errors=True)
        if crashes:
            self._rest(crash_rest_s(crashes))

    def _rest(self, rest_s: float) -> None:
        end_s = time.monotonic() + rest_s
        while (left_s := end_s - time.monotonic()) > 0 and not self.stopping.is_set():
            self._be_seen(self._executor.state)
            self.stopping.wait(min(left_s, self._settings.renew_s))

    def _ended_by_us(self, held: Held) -> bool:
        """True if a run paused because this conductor is shutting down, not because the user asked for a pause."""
        if not self.stopping.is_set():
            return False
        with self._store.read() as tx:
            return jobs.get(tx, held.job_id).signal != "pause"

    def _be_seen(self, executor: conductors.Executor) -> None:
        if executor == self._said and time.monotonic() - self._seen_s < self._settings.renew_s:
            return
        self._seen_s, self._said = time.monotonic(), executor
        try:
            with self._store.begin() as tx:
                conductors.seen(tx, self.id, executor)
        except OperationalError:
            log.warning("the store did not answer; this conductor counts as dead until the store answers again")

    def _leave(self) -> None:
        try:
            with self._store.begin() as tx:
                conductors.left(tx, self.id)
        except OperationalError:
            log.warning("the store did not answer; this conductor counts as alive until its entry expires")


def conduct(settings: Settings, *, as_child: bool = False) -> int:
    """Run jobs until SIGTERM or SIGINT, or until the parent ends if `as_child`; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if as_child:
        watch_parent(stop.set)
    store = Store(make_engine(settings.url))
    # Evaluators inherit this environment and must not see the database's URL.
    forget_settings()
    executor = _executor(settings)
    Conductor(settings, store, Blobs(settings.data_dir), stop, executor).work(partial(_load, executor))
    executor.close()
    store.close()
    sys.stderr.flush()
    # An abandoned run may still compute in its thread, and a normal exit of the interpreter would wait for it.
    os._exit(0)


def _executor(settings: Settings) -> Executor:
    if settings.executor == "local":
        return LocalExecutor()
    from workers.on_ray.executor import RayExecutor

    return RayExecutor(settings.ray_address)


def _load(executor: Executor) -> RunJob:
    from workers.job import run  # this imports torch

    return partial(run, executor=executor)


if __name__ == "__main__":
    conduct(Settings(), as_child=True)
