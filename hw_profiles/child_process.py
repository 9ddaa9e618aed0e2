"""ChildProcess: a program that we start, talk to, wait for and end; it does not outlive us.

A child's death is described in words: the signal or the exit status, and the last characters of its stderr. The users
of this class add their own limits, protocol and messages.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from hw_profiles import lifeline
from hw_profiles.child_environment import child_environment

POLL_S = 0.25
"""Seconds within which a cancellation is noticed."""
LAST_WORDS = 400
"""Characters of stderr that the description of a death includes."""
_CHUNK = 1024**2

Output: TypeAlias = IO[bytes] | Literal["pipe", "ours"]


class Cancelled(Exception):
    """The caller no longer wants the answer."""


@dataclass(frozen=True)
class Death:
    """The end of a child that did not finish its work; `kind` is `crash` or `timeout`."""

    kind: str
    reason: str


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs one of our modules; -P keeps a file in the current folder from replacing one of our
    packages.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def how_it_ended(status: int) -> str:
    """Return an exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:  # most real-time signals have no name
        return f"signal {-status}"


class ChildProcess:
    """A running child. If it is used as a context manager, it is gone when the block ends.

    Its stdin is a pipe whose other end we hold: a child that runs our code ends when it sees the pipe close.

    Args:
        command: the program and its arguments.
        environment: default: this process's environment without our settings.
        folder: the folder in which it starts.
        output: where stdout and stderr go. With "pipe", stdout comes to us and stderr is kept to describe a death.
        own_session: if True, signals of our terminal do not reach the child, and `kill` also ends everything that the
            child started.
        dies_by: the signal that Linux sends to the child when the thread that started it ends; if None, the child
            learns that this process has ended only from its stdin.
        name: the child's name in a Death.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        output: Output = "pipe",
        own_session: bool = False,
        dies_by: signal.Signals | None = signal.SIGKILL,
        name: str = "the child process",
    ) -> None:
        self._name = name
        self._own_session = own_session
        self._unread = bytearray()
        self._errors = tempfile.TemporaryFile() if output == "pipe" else None  # noqa: SIM115 - `close` closes it
        out = None if output == "ours" else subprocess.PIPE if output == "pipe" else output
        self._process = subprocess.Popen(
            _dying(command, dies_by),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=self._errors or out,
            cwd=folder,
            env=child_environment() if environment is None else environment,
            start_new_session=own_session,
        )

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def ended(self) -> int | None:
        """Return the child's exit status; None while it runs."""
        return self._process.poll()

    def errors(self) -> str:
        """Return everything that the child has written to stderr so far, if stderr is kept."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()

    def tell(self, line: str) -> None:
        """Write one line to the child's stdin. If the child has already died, `listen` and `read` report its death."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def listen(self, deadline_s: float, cancelled: Callable[[], bool] = lambda: False) -> dict[str, Any] | Death:
        """Return the JSON object on the next line of the child's stdout, or the child's death. Kill a child that is
        silent for too long.

        Raises:
            Cancelled: `cancelled`, which is called often, returned True.
        """
        end_s = time.monotonic() + deadline_s
        while b"\n" not in self._unread:
            chunk = self._chunk(end_s, cancelled)
            if not chunk:
                return self._silent(deadline_s) if chunk is None else self._death(end_s, deadline_s)
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def read(self, deadline_s: float = math.inf, most_bytes: int = 64 * 1024**2) -> bytes | Death:
        """Return the child's whole stdout once it has ended; `ended` then returns its exit status. Kill a child that
        exceeds a limit.
        """
        end_s = time.monotonic() + deadline_s
        while chunk := self._chunk(end_s, lambda: False):
            self._unread += chunk
            if len(self._unread) > most_bytes:
                self.kill()
                return Death("crash", f"{self._name} wrote more than {most_bytes} bytes")
        if chunk is None or not self._waited(end_s):
            return self._silent(deadline_s)
        return bytes(self._unread)

    def ask_to_end(self) -> None:
        """Close the child's stdin, which makes a child that runs our code end."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # data was still buffered for a dead process
                self._process.stdin.close()

    def end(self, timeout_s: float) -> int:
        """Ask the child to end, wait, and kill it if it still runs; return its exit status."""
        self.ask_to_end()
        if not self._waited(time.monotonic() + timeout_s):
            self.kill()
        return self._process.wait()

    def terminate(self, timeout_s: float) -> int:
        """Send SIGTERM, wait, and kill the child and its own session if it still runs; return its exit status."""
        self._process.terminate()
        self._waited(time.monotonic() + timeout_s)
        self.kill()
        return self._process.wait()

    def kill(self) -> None:
        """End the child at once, and everything in its session if it has a session of its own."""
        if self._own_session:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill the child if it still runs, and close its pipes."""
        self.kill()
        self.ask_to_end()
        for stream in (self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _chunk(self, end_s: float, cancelled: Callable[[], bool]) -> bytes | None:
        """Return the next bytes of stdout: no bytes at its end, None if the time has run out."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not cancelled():
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    return None
                if selector.select(min(left_s, POLL_S)):
                    return os.read(self._process.stdout.fileno(), _CHUNK)
        raise Cancelled

    def _waited(self, end_s: float) -> bool:
        """Wait until this time at the latest; return True if the child has ended."""
        try:
            self._process.wait(max(0.0, end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def _silent(self, deadline_s: float) -> Death:
        self.kill()
        return Death("timeout", f"silent for {deadline_s:.0f} s, killed")

    def _death(self, end_s: float, deadline_s: float) -> Death:
        if not self._waited(end_s):  # the child closed its stdout but still runs
            return self._silent(deadline_s)
        said = self.errors()[-LAST_WORDS:]
        told = f"{self._name} ended with {how_it_ended(self._process.returncode)}"
        return Death("crash", f"{told}: {said}" if said else told)


def _dying(command: Sequence[str], by: signal.Signals | None) -> list[str]:
    """Return a command that runs this one through `lifeline`, so that the kernel ends it when we end."""
    if by is None or sys.platform != "linux":
        return list(command)
    # With -I -S, the interpreter loads only the standard library before it becomes the command.
    script = str(Path(lifeline.__file__).absolute())
    return [sys.executable, "-I", "-S", script, str(int(by)), str(os.getpid()), *command]
