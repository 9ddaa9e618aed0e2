"""Sandbox: open untrusted files in a child process with limits, which answers in JSON and never in pickle.

The child has no secrets in its environment, may not open sockets, start programs or unpickle, and is killed
if it takes too much memory, processor time, disk space or elapsed time, or when this process ends. Any failure that a
file causes is reported as InvalidInput; only a fault of Netlathe's own code is an internal error.

A check computes, so it shares the host lock with other computations. Meanwhile, nothing is measured on this machine.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hw_profiles.child_environment import packages_path
from hw_profiles.child_process import ChildProcess, Death, how_it_ended, python_module
from hw_profiles.host_lock import HostLock
from service.errors import InvalidInput
from service.files.data_folder import NoSpace

log = logging.getLogger(__name__)

MIB = 1024**2
GIB = 1024**3
MAX_REPORT_BYTES = 64 * MIB
STDERR_TAIL = 4096
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")
# The limit is on address space, so libraries must not reserve address space for threads that are not needed.
THRIFT = {
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Cannot allocate memory", "can't allocate memory")


class CheckBroken(Exception):
    """The code of a check is faulty, independently of the file. The text is the child's traceback."""


@dataclass(frozen=True)
class Limits:
    """Limits of one check.

    Args:
        memory_bytes: size of the address space.
        cpu_s: processor time of all threads of the check.
        wall_s: elapsed time.
        file_bytes: size of the largest file that the check may write.
    """

    memory_bytes: int = 6 * GIB
    cpu_s: int = 1800
    wall_s: float = 1800.0
    file_bytes: int = 32 * GIB


QUICK = Limits(cpu_s=600, wall_s=300.0)
"""Limits of checks of stored uploads, for which a client waits."""


def run(task: str, request: Mapping[str, Any], limits: Limits, *, field: str = "file") -> dict[str, Any]:
    """Wait until nothing is measured on this machine, then run a task of `service.uploads.checks` on a request.

    The caller must not hold the host lock, because the lock admits no new holder while a measurement waits for it.

    Args:
        task: name of a module of `service.uploads.checks`.
        request: argument of the task.
        limits: limits of the task.
        field: the name of the file in an error.

    Returns:
        The task's report.

    Raises:
        InvalidInput: the task found a fault, crashed, or exceeded a limit.
        NoSpace: the server's disk is full.
        CheckBroken: the code of the task is faulty.
    """
    order = json.dumps({"task": task, "request": dict(request), "limits": asdict(limits)})
    with (
        tempfile.TemporaryDirectory(prefix="netlathe-check-") as scratch,
        HostLock().shared(),
        _child(scratch) as child,
    ):
        child.tell(order)
        # The child's stdin stays open. The child ends when stdin closes, so no child survives this process.
        report = child.read(limits.wall_s, MAX_REPORT_BYTES)
        status, tail = child.ended(), child.errors()[-STDERR_TAIL:]
    if isinstance(report, Death) and report.kind == "timeout":
        raise InvalidInput(field, None, f"checking the file took more than {limits.wall_s:g} s", code="check_time")
    assert status is not None
    return _outcome(b"" if isinstance(report, Death) else report, status, tail, limits, field)


def _child(scratch: str) -> ChildProcess:
    command = python_module("service.uploads.checks")
    return ChildProcess(command, environment=_environment(scratch), folder=Path(scratch), own_session=True)


def _environment(scratch: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    kept["PYTHONPATH"] = packages_path(kept.get("PYTHONPATH", ""))
    return {**kept, **THRIFT, "HOME": scratch, "TMPDIR": scratch}


def _outcome(report: bytes, status: int, tail: str, limits: Limits, field: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if report and status == 0:
        found = json.loads(report)
    if "result" in found:
        result: dict[str, Any] = found["result"]
        return result
    if "invalid" in found:
        wrong = found["invalid"]
        raise InvalidInput(wrong["field"], wrong["value"], wrong["message"])
    if found.get("full"):
        raise NoSpace
    if "broken" in found:
        raise CheckBroken(found["broken"])
    log.warning("a check failed with status %s: %s", status, found.get("failed") or tail)
    raise InvalidInput(field, None, _reason(found.get("failed", ""), status, tail, limits), code="check_failed")


def _reason(failed: str, status: int, tail: str, limits: Limits) -> str:
    if any(sign in failed or sign in tail for sign in _OUT_OF_MEMORY):
        return f"checking the file needs more than {limits.memory_bytes / GIB:.3g} GiB of memory"
    if failed:
        return f"the file could not be checked: {failed}"
    if status == -signal.SIGXCPU:
        return f"checking the file took more than {limits.cpu_s} s of processor time"
    return f"the file made the check crash ({how_it_ended(status)})"
