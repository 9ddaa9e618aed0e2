"""Heartbeats of an agent, and the server's instructions in reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hw_profiles.wire.message import Message, in_range, one_of, short

AgentState = Literal["idle", "working", "draining"]
Action = Literal["continue", "cancel", "drain", "removed"]


@dataclass(frozen=True)
class Heartbeat(Message):
    """`POST /agents/{id}/heartbeat`: `done` of `total` models of the lease, if there is one."""

    state: AgentState
    lease_id: str | None = None
    done: int = 0
    total: int = 0
    temperature_c: float | None = None
    load: float | None = None

    def __post_init__(self) -> None:
        one_of("state", self.state, get_args(AgentState))
        if self.lease_id is not None:
            short("lease_id", self.lease_id, 64)
        in_range("done", self.done, 0, 1e9)
        in_range("total", self.total, 0, 1e9)
        if self.temperature_c is not None:
            in_range("temperature_c", self.temperature_c, -100, 500)
        if self.load is not None:
            in_range("load", self.load, 0, 1e6)


@dataclass(frozen=True)
class HeartbeatAnswer(Message):
    """The server's instruction: `cancel` tells the agent to drop the lease, `drain` to finish the lease and take no
    more. `removed` has the ids of deleted devices, for which the agent must request no more work; it is repeated until
    the agent announces itself again.
    """

    action: Action
    device_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("action", self.action, get_args(Action))
