"""The states of a job, and all moves between them.

queued --claim--> running --> succeeded | failed | cancelled
  |  ^              |   |
  |  +--release-----+   +--pause--> paused --resume--> queued
  +--pause--> paused        any but the last three --cancel--> cancelled
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

State: TypeAlias = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
FINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})

MOVES: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        "queued": frozenset({"running", "paused", "cancelled"}),
        "running": frozenset({"running", "queued", "paused", "succeeded", "failed", "cancelled"}),
        "paused": frozenset({"queued", "cancelled"}),
        "succeeded": frozenset(),
        "failed": frozenset(),
        "cancelled": frozenset(),
    }
)
"""The allowed moves from each state; running -> running is a takeover after the holder's lease has expired."""
