"""Agents: the processes that time things, one for each machine."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from hw_profiles.wire.calls import LEASE_S, Enrolment, Heartbeat
from service.errors import Conflict, NotFound
from service.store import tokens
from service.store.base import Base, Tx, new_id

ALIVE = timedelta(seconds=LEASE_S)
"""Silence after which an agent counts as gone, and its devices as offline."""


class Agent(Base):
    """One agent. `fingerprint` tells two machines of one name apart; `drain`: it shall take no more work; `removed`:
    ids of its devices that were deleted since it last announced itself.
    """

    __tablename__ = "agents"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    machine: Mapped[str] = mapped_column(String(32), unique=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    protocol: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default="idle")
    self_test: Mapped[dict[str, Any]]
    drain: Mapped[bool] = mapped_column(default=False)
    removed: Mapped[list[Any] | None]
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    temperature_c: Mapped[float | None]
    load: Mapped[float | None]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]

    def alive(self, now: datetime) -> bool:
        """Whether it was heard of lately."""
        return now - self.last_seen_at < ALIVE


def get(tx: Tx, agent_id: str) -> Agent:
    """The agent with this id.

    Raises:
        NotFound: there is none.
    """
    agent = tx.session.get(Agent, agent_id)
    if agent is None:
        raise NotFound("agent", agent_id)
    return agent


def find(tx: Tx, ref: str) -> Agent:
    """The agent with this id, else with this name.

    Raises:
        NotFound: there is none.
        Conflict: several have this name, and only an id says which.
    """
    by_id = tx.session.get(Agent, ref)
    named = [by_id] if by_id else tx.session.execute(select(Agent).where(Agent.name == ref)).scalars().all()
    if not named:
        raise NotFound("agent", ref)
    if len(named) > 1:
        raise Conflict(f"{len(named)} agents are named {ref!r}: give the id", code="ambiguous")
    return named[0]


def enrol(tx: Tx, enrolment: Enrolment) -> Agent:
    """The agent of this machine, from now on with new credentials: those of a former one are revoked.

    Raises:
        Conflict: another machine's agent works under this machine name.
    """
    agent = tx.session.execute(select(Agent).where(Agent.machine == enrolment.machine)).scalar_one_or_none()
    if agent is None:
        agent = Agent(id=new_id("agt"), machine=enrolment.machine, created_at=tx.now)
    elif agent.alive(tx.now) and agent.fingerprint != enrolment.fingerprint:
        raise Conflict(
            f"an agent on another machine works as {enrolment.machine!r}: start this one with another --machine",
            code="machine",
        )
    tokens.revoke_agent(tx, agent.id)
    announce(tx, agent, enrolment)
    return agent


def announce(tx: Tx, agent: Agent, enrolment: Enrolment) -> None:
    """Take over what an agent says of itself when it starts.

    Raises:
        Conflict: it claims another machine than the one it was enrolled for.
    """
    if agent.machine != enrolment.machine:
        raise Conflict(f"this agent was enrolled for machine {agent.machine!r}: enrol it again", code="machine")
    agent.name = enrolment.name
    agent.fingerprint = enrolment.fingerprint
    agent.protocol = enrolment.protocol
    agent.self_test = enrolment.self_test.to_json()
    agent.state, agent.done, agent.total, agent.drain = "idle", 0, 0, False
    agent.removed = None
    agent.last_seen_at = tx.now
    tx.session.add(agent)
    tx.session.flush()


def heard(tx: Tx, agent: Agent, heartbeat: Heartbeat) -> None:
    """Note what a heartbeat says."""
    agent.state, agent.done, agent.total = heartbeat.state, heartbeat.done, heartbeat.total
    agent.temperature_c, agent.load = heartbeat.temperature_c, heartbeat.load
    agent.last_seen_at = tx.now


def rows() -> Select[Agent]:
    """All agents, for a list."""
    return select(Agent)


def remove(tx: Tx, agent: Agent) -> None:
    """Forget an agent: its credentials are void, its devices stay and are offline."""
    tokens.revoke_agent(tx, agent.id)
    tx.session.execute(delete(Agent).where(Agent.id == agent.id))
