"""Run: one run of a job in a thread, and what each way of ending means for the job."""

from __future__ import annotations

import logging
import re
import secrets
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy.exc import OperationalError

from service.job_ports import StorePorts
from service.store.job_states import State
from workers.context import Halted
from workers.errors import DeviceOffline, JobFailed, LeaseLost, MeasurementFailed, NoRoom, PoolBroken
from workers.plan import JobPlan
from workers.ports import Outcome, Ports

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """The state that a job goes to, with what is written beside it. `lines`: (level, text) for its log.

    `machine_failure`: why the machine failed, not the job: queued again, but not for ever.
    """

    state: State
    values: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[tuple[str, str], ...] = ()
    machine_failure: str | None = None


class Run:
    """A run in a thread. `done` is set at its end; `ending` is None where the job was lost."""

    def __init__(self, run_job: Callable[[JobPlan, Ports], Outcome], plan: JobPlan, ports: StorePorts) -> None:
        self.done = threading.Event()
        self.ending: Ending | None = None
        self._run_job = run_job
        self._plan = plan
        self._ports = ports

    def start(self) -> Self:
        """Begin; returns at once."""
        threading.Thread(target=self._work, name=f"run-{self._plan.job_id}", daemon=True).start()
        return self

    def lose(self) -> None:
        """The job is somebody else's: the run is told at its next word with the store."""
        self._ports.lost.set()

    def _work(self) -> None:
        try:
            self.ending = _of_outcome(self._run_job(self._plan, self._ports))
        except SystemExit as error:  # Ray's way of telling that it is lost
            self.ending = of_error(PoolBroken(f"the run was told to exit ({error.code})"))
        except Exception as error:
            self.ending = of_error(error)
        finally:
            self.done.set()


_PATH = re.compile(r"(: )?'?/[^'\s]*'?")
_CRASH = "The machine failed and not the job, which is queued again"
_STATES: Mapping[str, State] = {"finished": "succeeded", "paused": "paused", "cancelled": "cancelled"}


def _of_outcome(outcome: Outcome) -> Ending:
    values: dict[str, Any] = {"verdict": outcome.verdict} if outcome.end == "finished" else {}
    lines = (("info", outcome.reason),) if outcome.reason else ()
    return Ending(_STATES[outcome.end], values, lines)


def of_error(error: Exception) -> Ending | None:
    """What an exception out of a run means for its job; None: nothing, it is somebody else's."""
    match error:
        case LeaseLost():
            log.warning("%s", error)
            return None
        case NoRoom():
            log.info("%s; the job waits in the queue", error)
            return Ending("queued", lines=(("info", f"Others have all there is to compute on ({error}): it waits."),))
        case PoolBroken() | MemoryError() | OSError() | OperationalError():
            log.error("the infrastructure failed; the job goes back to the queue", exc_info=error)
            reason = _reason(error)
            return Ending("queued", lines=(("warning", f"{_CRASH}: {reason}"),), machine_failure=reason)
        case Halted():
            return Ending(_STATES[error.end])
        case JobFailed():
            return _failed(error.code, error.step, error.field, error.detail)
        case DeviceOffline():
            return _failed("device_offline", "device", "targets", str(error))
        case MeasurementFailed():
            return _failed("measurement_failed", "device", "targets", str(error))
        case ValueError() if hasattr(error, "field") and hasattr(error, "value"):
            return _failed("invalid", "run", str(error.field), str(error))
    number = secrets.token_hex(6)
    log.error("internal error %s", number, exc_info=error)
    return _failed("internal", "run", None, f"the run broke; error id {number} in the conductor's log")


def _reason(error: PoolBroken | MemoryError | OSError | OperationalError) -> str:
    """What is wrong with the machine, without its paths and addresses: those are in the conductor's log."""
    match error:
        case MemoryError():
            return "out of memory"
        case OSError(strerror=str(text)):
            return text[:1].lower() + text[1:]
        case OperationalError(orig=sqlite3.Error() as cause):
            return str(cause)
        case PoolBroken():
            return f"no evaluator comes up ({_PATH.sub('', str(error))[:200]})"
    return type(error).__name__


def _failed(code: str, step: str, field: str | None, detail: str) -> Ending:
    failure = {"code": code, "step": step, "field": field, "detail": detail}
    return Ending("failed", {"failure": failure}, (("error", detail),))
