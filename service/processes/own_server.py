"""A private server for one command: `netlathe serve` in a child process on a free port, stopped at the end."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hw_profiles.child_environment import child_environment
from hw_profiles.child_process import ChildProcess

STARTS_WITHIN_S = 180.0
"""Time limit for the server to start. It is generous, because on a busy machine the imports alone take a long time."""
STOPS_WITHIN_S = 20.0


class ServerDied(Exception):
    """The child ended or never printed its address; the text ends with its last lines."""


@contextlib.contextmanager
def embedded_server(data_dir: Path, log: Path, *, keep: bool = False) -> Iterator[str]:
    """Yield the URL of a server on a free loopback port. At the end, stop all its processes unless `keep` is set.

    Raises:
        ServerDied: the server did not start.
    """
    child = _start(data_dir, log, keep)
    try:
        yield _url(child, log)
    finally:
        if not keep:
            # Processes of the server's session that do not end are killed.
            child.terminate(STOPS_WITHIN_S)
            child.close()


def _start(data_dir: Path, log: Path, keep: bool) -> ChildProcess:
    command = [sys.executable, "-P", "-c", "from service.cli import main; main()", "serve"]
    command += ["--host", "127.0.0.1", "--port", "0", "--data-dir", str(data_dir.absolute()), "--json"]
    with log.open("wb") as stream:
        # Settings for another server on this machine do not apply to this server. The server has its own session, so
        # its children end with it, and Ctrl-C reaches only the command, which stops the server cleanly.
        child = ChildProcess(
            command,
            environment=child_environment(with_packages=True),
            output=stream,
            own_session=True,
            dies_by=None if keep else signal.SIGTERM,
        )
    child.ask_to_end()  # closes stdin, which a server does not read
    return child


def _url(child: ChildProcess, log: Path) -> str:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        url = _said_url(log.read_text(errors="replace"))
        if url is not None:
            return url
        if (status := child.ended()) is not None:
            raise ServerDied(f"the server ended with code {status}: {last_lines(log)}")
        time.sleep(0.1)
    raise ServerDied(f"the server printed no address within {STARTS_WITHIN_S:.0f} s: {last_lines(log)}")


def _said_url(text: str) -> str | None:
    """Find the URL in the log: `--json` prints it in a JSON object of several lines, among other lines."""
    start, end = text.find('{\n  "url"'), text.find("\n}")
    if start < 0 or end < start:
        return None
    return str(json.loads(text[start : end + 2])["url"])


def last_lines(log: Path, count: int = 5) -> str:
    """Return the last lines of a log as one line."""
    return " | ".join(_plain(line) for line in log.read_text(errors="replace").split("\n")[-count - 1 :]).strip(" |")


def _plain(line: str) -> str:
    """Return a line of output as plain text. If the line is an error that a command printed as JSON, return the error's
    text.
    """
    return f"netlathe: {json.loads(line)['detail']}" if line.startswith('{"detail": ') else line
