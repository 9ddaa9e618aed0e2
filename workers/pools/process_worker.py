"""Worker: the parent's handle on one child process of a ProcessPool."""

from __future__ import annotations

import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.reduction import ForkingPickler
from typing import Literal, TypeAlias

from search.candidate import Candidate
from search.evaluation import Evaluation
from workers.pools import process_child

State: TypeAlias = Literal["starting", "idle", "waiting", "busy"]
"""State `waiting`: the worker has a candidate, but a timing holds the machine's lock, so no deadline runs."""


class Worker:
    """A child process, its pipe, and its current candidate. `packed` is the pickled EvaluatorFactory."""

    def __init__(self, context: SpawnContext, packed: bytes, threads: int, guard: process_child.Guard) -> None:
        self.link: Connection
        self.link, theirs = context.Pipe()
        self.process = context.Process(target=process_child.main, args=(theirs, threads, guard), daemon=True)
        self.process.start()
        theirs.close()
        self.state: State = "starting"
        self.since_s = time.monotonic()
        self.candidate: Candidate | None = None
        self._send(packed)

    def give(self, candidate: Candidate) -> None:
        """Hand over a candidate."""
        self._enter("waiting")
        self.candidate = candidate
        self._send(bytes(ForkingPickler.dumps(candidate)))

    def _send(self, packed: bytes) -> None:
        """Send an object to the child. A child that has just died is noticed through its sentinel, not here."""
        try:
            self.link.send_bytes(packed)
        except OSError:
            self.process.kill()

    def receive(self) -> Evaluation | process_child.Broken | None:
        """Receive one message; return None if the message only changed the state.

        Raises:
            EOFError, OSError: the child is gone.
        """
        message = self.link.recv()
        if message == process_child.READY:
            self._enter("idle")
        elif message == process_child.STARTED:
            self._enter("busy")
        elif isinstance(message, process_child.Broken):
            return message
        else:
            assert isinstance(message, Evaluation)
            self._enter("idle")
            self.candidate = None
            return message
        return None

    def late_s(self, start_s: float, deadline_s: float) -> float:
        """Return the seconds past this worker's current deadline (negative: time left)."""
        limit_s = {"starting": start_s, "busy": deadline_s}.get(self.state, float("inf"))
        return time.monotonic() - self.since_s - limit_s

    def end(self) -> str:
        """Kill and reap the child; return a readable reason why it ended."""
        self.process.kill()
        self.process.join()
        self.link.close()
        code = self.process.exitcode or 0
        if code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}"

    def _enter(self, state: State) -> None:
        self.state = state
        self.since_s = time.monotonic()
