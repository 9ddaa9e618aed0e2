"""Run: runs a job in a thread and turns each kind of ending into the job's next state."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from compress.errors import TrainingDiverged, Unsupported
from hw_profiles.errors import ExtraMissing
from search.errors import Infeasible
from service.conducting.machine_failure import machine_failure
from service.conducting.store_ports import StorePorts
from service.errors import REFUSALS
from service.store.jobs.states import State
from workers.errors import DeviceOffline, Diverged, JobFailed, LeaseLost, MeasurementFailed, NoRoom, PoolBroken
from workers.plan import JobPlan
from workers.ports import Outcome, Ports
from workers.running.context import Halted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """The next state of a job, with values for the job's row. `lines` holds (level, text) pairs for the job's log.

    If the machine failed, `machine_failure` says how, and the job is queued again, a limited number of times.
    """

    state: State
    values: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[tuple[str, str], ...] = ()
    machine_failure: str | None = None


class Run:
    """A run in a thread. `done` is set at its end; `ending` is None if the job was lost to another conductor."""

    def __init__(self, run_job: Callable[[JobPlan, Ports], Outcome], plan: JobPlan, ports: StorePorts) -> None:
        self.done = threading.Event()
        self.ending: Ending | None = None
        self._run_job = run_job
        self._plan = plan
        self._ports = ports

    def start(self) -> Self:
        """Start the thread and return at once."""
        threading.Thread(target=self._work, name=f"run-{self._plan.job_id}", daemon=True).start()
        return self

    def lose(self) -> None:
        """Note that another conductor has the job. The run learns this when it next calls the store."""
        self._ports.lost.set()

    def _work(self) -> None:
        try:
            self.ending = _of_outcome(self._run_job(self._plan, self._ports))
        except SystemExit as error:  # Ray raises this when its connection is lost
            self.ending = of_error(PoolBroken(f"the run was told to exit ({error.code})"))
        except Exception as error:
            self.ending = of_error(error, self._ports.phase)
        finally:
            self.done.set()


_CRASH = "The machine failed, not the job; the job is queued again"
_STATES: Mapping[str, State] = {"finished": "succeeded", "paused": "paused", "cancelled": "cancelled"}


def _of_outcome(outcome: Outcome) -> Ending:
    values: dict[str, Any] = {"verdict": outcome.verdict} if outcome.end == "finished" else {}
    lines = (("info", outcome.reason),) if outcome.reason else ()
    return Ending(_STATES[outcome.end], values, lines)


_KNOWN: Mapping[type[Exception], tuple[str, str | None]] = {
    Infeasible: ("infeasible", "limits"),
    Unsupported: ("unsupported", "model"),
    TrainingDiverged: ("diverged", "training"),
    Diverged: ("diverged", "training"),
    ExtraMissing: ("missing_extra", None),
}
"""Errors whose text is meant for users, each with the failure's code and the field of the request that is at fault."""


def of_error(error: Exception, step: str = "run") -> Ending | None:
    """Return the ending of a job whose run raised an exception; None if another conductor has the job.

    Args:
        step: the phase in which the exception was raised.
    """
    match error:
        case LeaseLost():
            log.warning("%s", error)
            return None
        case NoRoom():
            log.info("%s; the job waits in the queue", error)
            return Ending("queued", lines=(("info", f"Other jobs use all processors ({error}); this job waits."),))
        case Halted():
            return Ending(_STATES[error.end])
        case JobFailed():
            return _failed(error.code, error.step, error.field, error.detail)
        case DeviceOffline():
            return _failed("device_offline", "device", "targets", str(error))
        case MeasurementFailed():
            return _failed("measurement_failed", "device", "targets", str(error))
    if isinstance(error, REFUSALS):
        return _failed("invalid", step, error.field, error.message)
    for kind, (code, about) in _KNOWN.items():
        if isinstance(error, kind):
            return _failed(code, step, about, str(error))
    return _machine_failed(error) or _unexpected(error, step)


def _machine_failed(error: Exception) -> Ending | None:
    reason = machine_failure(error)
    if reason is None:
        return None
    log.error("the machine failed; the job is queued again", exc_info=error)
    return Ending("queued", lines=(("warning", f"{_CRASH}: {reason}"),), machine_failure=reason)


def _unexpected(error: Exception, step: str) -> Ending:
    """Return the ending for an unexpected error. The error's text goes only to the log, where the error id finds it."""
    number = secrets.token_hex(6)
    log.error("internal error %s", number, exc_info=error)
    if type(error).__module__.split(".")[0] == "onnxruntime":
        detail = f"onnxruntime could not run a network of this job; the server's log has the reason, error id {number}"
        return _failed("engine_failed", step, "model", detail)
    detail = f"a fault of Netlathe, not of your input; the server's log has it as error id {number}"
    return _failed("internal", step, None, detail)


def _failed(code: str, step: str, field: str | None, detail: str) -> Ending:
    failure = {"code": code, "step": step, "field": field, "detail": detail}
    return Ending("failed", {"failure": failure}, (("error", detail),))
