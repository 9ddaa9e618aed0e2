"""The other end of a child process of ProcessPool: makes one evaluator, then evaluates what arrives.

Protocol over one pipe. The parent sends an EvaluatorFactory, then candidates. The child answers READY or
Broken once, then for each candidate STARTED (its deadline begins) and an Evaluation.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeAlias

from hw_profiles.host_lock import LOCK_DIR_VARIABLE
from search.candidate import Candidate
from workers.evaluating.evaluate_safely import attempt
from workers.pools.malloc_settings import keep_freed_memory
from workers.pools.pool import EvaluatorFactory

Guard: TypeAlias = Callable[[], AbstractContextManager[object]]
READY = "ready"
STARTED = "started"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Broken:
    """The factory raised: this child will never evaluate anything."""

    reason: str


def main(link: Connection, threads: int, guard: Guard) -> None:
    """Run a child until its parent hangs up.

    Args:
        link: the child's end of the pipe.
        threads: how many threads the numeric libraries may use here.
        guard: held around each evaluation, so that a timing agent on this machine can get quiet between two.
    """
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before the factory's import of torch reads it
    forget_settings()
    keep_freed_memory()
    inbox: queue.SimpleQueue[EvaluatorFactory | Candidate] = queue.SimpleQueue()
    factory = link.recv()
    threading.Thread(target=_receive, args=(link, inbox), name="inbox", daemon=True).start()
    try:
        evaluator = factory()
    except Exception as error:
        link.send(Broken(f"{type(error).__name__}: {error}"))
        return
    link.send(READY)
    while True:
        candidate = inbox.get()
        assert isinstance(candidate, Candidate)
        with guard():
            link.send(STARTED)
            evaluation = attempt(evaluator, candidate)
        link.send(evaluation)


def forget_settings() -> None:
    """Remove the settings of whoever started this process, secrets among them."""
    for name in [name for name in os.environ if name.startswith("NETLATHE_") and name != LOCK_DIR_VARIABLE]:
        del os.environ[name]


def _receive(link: Connection, inbox: queue.SimpleQueue[EvaluatorFactory | Candidate]) -> None:
    """Feed the inbox; when the parent hangs up or dies, end the process in the middle of whatever it does."""
    while True:
        try:
            inbox.put(link.recv())
        except (EOFError, OSError):
            os._exit(0)


def _die_with_parent() -> None:
    # The pipe's end reaches the inbox thread only while no native call keeps the interpreter's lock.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
