"""Switches in the environment, such as KEEP=1 and NETLATHE_TRACE=1."""

from __future__ import annotations

import os

OFF = frozenset({"", "0", "false", "no", "off"})


def is_on(name: str) -> bool:
    """True if the variable is set to anything but a word that means no."""
    return os.environ.get(name, "").strip().lower() not in OFF
