"""Sandbox: strangers' files are opened in a child process with limits, which answers in JSON and never in pickle.

The child has no secrets in its environment, may not open sockets, start programs or unpickle, and is killed
when it takes too much memory, processor time, disk or time, or when this process ends. Whatever a file does to
it is an answer about the file, an InvalidInput; only a mistake of our own code is an internal error.

A check computes: it holds the host lock with whoever else does, so that nobody on this machine measures meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hw_profiles.host_lock import HostLock
from service.errors import InvalidInput
from service.files.data_folder import NoSpace

log = logging.getLogger(__name__)

MIB = 1024**2
GIB = 1024**3
MAX_REPORT_BYTES = 64 * MIB
STDERR_TAIL_BYTES = 4096
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")
# Address space is what is limited, so no library may reserve it for threads that nobody asked for.
THRIFT = {
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Cannot allocate memory", "can't allocate memory")


class CheckBroken(Exception):
    """The code of a check is wrong or incomplete, whatever the file is like. The text is the child's traceback."""


@dataclass(frozen=True)
class Limits:
    """What one check may take.

    Args:
        memory_bytes: address space.
        cpu_s: processor time of all its threads.
        wall_s: time on the clock.
        file_bytes: largest file it may write.
    """

    memory_bytes: int = 6 * GIB
    cpu_s: int = 1800
    wall_s: float = 1800.0
    file_bytes: int = 32 * GIB


def run(task: str, request: Mapping[str, Any], limits: Limits, *, field: str = "file") -> dict[str, Any]:
    """Run a task of `service.uploads.checks` on a request, both plain JSON; first wait while somebody measures.

    The caller must not hold the host lock: whoever waits to measure lets no second holder in.

    Args:
        task: name of a module of `service.uploads.checks`.
        request: its argument.
        limits: what it may take.
        field: what the file is called in an error.

    Returns:
        What the task reports.

    Raises:
        InvalidInput: the task found something wrong, crashed, or broke a limit.
        NoSpace: a disk of ours is full.
        CheckBroken: the task itself is wrong.
    """
    with (
        tempfile.TemporaryDirectory(prefix="netlathe-check-") as scratch,
        tempfile.TemporaryFile() as stderr,
        HostLock().shared(),
    ):
        child = subprocess.Popen(
            [sys.executable, "-m", "service.uploads.checks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=scratch,
            env=_environment(scratch),
            start_new_session=True,
        )
        try:
            order = {"task": task, "request": dict(request), "limits": asdict(limits)}
            report = _converse(child, json.dumps(order).encode() + b"\n", time.monotonic() + limits.wall_s)
        finally:
            _end(child)
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - STDERR_TAIL_BYTES))
        tail = stderr.read().decode(errors="replace")
    if report is None:
        raise InvalidInput(field, None, f"checking the file took more than {limits.wall_s:g} s", code="check_time")
    return _outcome(report, child.returncode, tail, limits, field)


def _environment(scratch: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    # The child starts elsewhere: what this process imports from a relative path must stay found.
    paths = [str(Path(__file__).parents[2]), *kept.get("PYTHONPATH", "").split(os.pathsep)]
    kept["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in paths if path)
    return {**kept, **THRIFT, "HOME": scratch, "TMPDIR": scratch}


def _converse(child: subprocess.Popen[bytes], order: bytes, deadline: float) -> bytes | None:
    """Send the order and read the whole report; None where the time ran out.

    Our end of stdin stays open until `_end`: a child whose stdin closes ends itself, so that none survives us.
    """
    assert child.stdin is not None
    assert child.stdout is not None
    report = bytearray()
    try:
        child.stdin.write(order)
        child.stdin.flush()
    except BrokenPipeError:
        return b""  # it died at once: its exit status tells
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while len(report) <= MAX_REPORT_BYTES:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            chunk = os.read(child.stdout.fileno(), MIB)
            if not chunk:
                return bytes(report) if _ended(child, deadline) else None
            report += chunk
    return b""


def _ended(child: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()


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
    name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"the file made the check crash ({name})"
