"""A server of its own for one command: `netlathe serve` in a child process on a free port, stopped at the end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

STARTS_WITHIN_S = 180.0
"""Guards against hanging: a busy machine takes its time to import what a server needs."""
STOPS_WITHIN_S = 20.0


class ServerDied(Exception):
    """The child ended, or never said its address; the text ends with its last lines."""


@contextlib.contextmanager
def embedded_server(data_dir: Path, log: Path, *, keep: bool = False) -> Iterator[str]:
    """The URL of a server on a free loopback port. All its processes are gone at the end, unless `keep`.

    Raises:
        ServerDied: it did not come up.
    """
    child = _start(data_dir, log)
    try:
        yield _url(child, log)
    finally:
        if not keep:
            _stop(child)


def _start(data_dir: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve"]
    command += ["--host", "127.0.0.1", "--port", "0", "--data-dir", str(data_dir), "--json"]
    # What is set for another server on this machine is not for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NETLATHE_")}
    with log.open("wb") as stream:
        # A session of its own: its children end with it, and Ctrl-C reaches the command, which stops it in order.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )


def _url(child: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        url = _said_url(log.read_text(errors="replace"))
        if url is not None:
            return url
        if child.poll() is not None:
            raise ServerDied(f"the server ended with code {child.returncode}: {last_lines(log)}")
        time.sleep(0.1)
    raise ServerDied(f"the server said no address within {STARTS_WITHIN_S:.0f} s: {last_lines(log)}")


def _said_url(text: str) -> str | None:
    """`--json` prints an object over several lines; the log may hold other lines around it."""
    start, end = text.find('{\n  "url"'), text.find("\n}")
    if start < 0 or end < start:
        return None
    return str(json.loads(text[start : end + 2])["url"])


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, on one line."""
    return " | ".join(_plain(line) for line in log.read_text(errors="replace").split("\n")[-count - 1 :]).strip(" |")


def _plain(line: str) -> str:
    """With `--json`, what a command dies of is an object on one line."""
    return f"netlathe: {json.loads(line)['detail']}" if line.startswith('{"detail": ') else line


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOPS_WITHIN_S)
    # Whatever of its session is still there did not obey.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
