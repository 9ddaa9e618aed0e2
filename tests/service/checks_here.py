"""Checks of uploads in this process: the sandbox's own orders and answers, without its child process.

A child imports torch first, which takes seconds of processor time, and hundreds of tests upload something.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from service.uploads.checks.__main__ import _answer


class HereProcess:
    """Stands in for the child of `service.uploads.sandbox`: reads one order, does it at once, and has ended well."""

    def __init__(self) -> None:
        self._report = b""

    def tell(self, line: str) -> None:
        order = json.loads(line)
        self._report = _answer(order["task"], order["request"]).encode()

    def read(self, deadline_s: float, most_bytes: int) -> bytes:
        return self._report

    def ended(self) -> int:
        return 0

    def errors(self) -> str:
        return ""


@contextmanager
def child_here(scratch: str) -> Iterator[HereProcess]:
    """Takes the place of `service.uploads.sandbox._child`."""
    yield HereProcess()
