"""Processes of a machine: those below one, and what each was started with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """Process ids of the children of all threads of a process."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has just ended
            found += [int(child) for child in listed.read_text().split()]
    return found


def below(pid: int) -> list[int]:
    """Process ids of every descendant of a process."""
    found = children(pid)
    return found + [each for child in found for each in below(child)]


def command_line(pid: int) -> str:
    """What a process was started with; nothing once it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""
