"""The child's side of a ProcessPool: makes one evaluator, then evaluates the candidates that arrive.

Parent and child talk over one pipe. The parent sends an EvaluatorFactory, then candidates. The child first answers
READY or Broken; then, for each candidate, it sends STARTED (the candidate's deadline begins) and an Evaluation.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeAlias

from hw_profiles.child_environment import forget_settings
from hw_profiles.lifeline import die_with_parent
from search.candidate import Candidate
from workers.evaluating.evaluate_safely import attempt
from workers.pools.malloc_settings import keep_freed_memory
from workers.pools.pool import EvaluatorFactory

Guard: TypeAlias = Callable[[], AbstractContextManager[object]]
READY = "ready"
STARTED = "started"


@dataclass(frozen=True)
class Broken:
    """A message saying that the factory raised an exception, so this child will never evaluate anything."""

    reason: str


def main(link: Connection, threads: int, guard: Guard) -> None:
    """Run a child until its parent closes the pipe.

    Args:
        link: the child's end of the pipe.
        threads: number of threads that the numeric libraries may use here.
        guard: held during each evaluation, so that a timing agent can have this machine to itself between two
            evaluations.
    """
    # The inbox thread sees the end of the pipe only while no native call holds the interpreter's lock.
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    os.environ["OMP_NUM_THREADS"] = str(threads)  # set before the factory's import of torch reads it
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


def _receive(link: Connection, inbox: queue.SimpleQueue[EvaluatorFactory | Candidate]) -> None:
    """Feed the inbox. When the parent closes the pipe or dies, end this process, even in the middle of an
    evaluation.
    """
    while True:
        try:
            inbox.put(link.recv())
        except (EOFError, OSError):
            os._exit(0)
