"""Agents: the processes that run timings, one per machine."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from hw_profiles.wire.bounds import LEASE_S
from hw_profiles.wire.enrolment import Enrolment
from hw_profiles.wire.heartbeat import Heartbeat
from service.errors import Conflict, NotFound
from service.store import tokens
from service.store.base import Base, Tx, new_id

ALIVE = timedelta(seconds=LEASE_S)
"""Silence after which an agent counts as gone, and its devices as offline."""


class Agent(Base):
    """One agent. `fingerprint` distinguishes machines with the same name. `drain` means that the agent takes no more
    work. `removed` has the ids of its devices that were deleted since the agent last announced itself.
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
        """True if the agent was heard from recently."""
        return now - self.last_seen_at < ALIVE


def get(tx: Tx, agent_id: str) -> Agent:
    """Return the agent with this id.

    Raises:
        NotFound: there is no such agent.
    """
    agent = tx.session.get(Agent, agent_id)
    if agent is None:
        raise NotFound("agent", agent_id)
    return agent


def find(tx: Tx, ref: str) -> Agent:
    """Return the agent with this id, or else with this name.

    Raises:
        NotFound: there is no such agent.
        Conflict: several agents have this name, so an id is needed.
    """
    by_id = tx.session.get(Agent, ref)
    named = [by_id] if by_id else tx.session.execute(select(Agent).where(Agent.name == ref)).scalars().all()
    if not named:
        raise NotFound("agent", ref)
    if len(named) > 1:
        raise Conflict(f"{len(named)} agents are named {ref!r}: give the id", code="ambiguous")
    return named[0]


def enrol(tx: Tx, enrolment: Enrolment) -> Agent:
    """Return the agent of this machine, created if needed; credentials of an earlier enrolment are revoked.

    Raises:
        Conflict: an agent of another machine uses this machine name.
    """
    agent = tx.session.execute(select(Agent).where(Agent.machine == enrolment.machine)).scalar_one_or_none()
    if agent is None:
        agent = Agent(id=new_id("agt"), machine=enrolment.machine, created_at=tx.now)
    elif agent.alive(tx.now) and agent.fingerprint != enrolment.fingerprint:
        raise Conflict(
            f"an agent on another machine uses the name {enrolment.machine!r}: start this agent with another --machine",
            code="machine",
        )
    tokens.revoke_agent(tx, agent.id)
    announce(tx, agent, enrolment)
    return agent


def announce(tx: Tx, agent: Agent, enrolment: Enrolment) -> None:
    """Store what an agent reports about itself when it starts.

    Raises:
        Conflict: the agent names a different machine than it did at its enrolment.
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
    """Store the contents of a heartbeat."""
    agent.state, agent.done, agent.total = heartbeat.state, heartbeat.done, heartbeat.total
    agent.temperature_c, agent.load = heartbeat.temperature_c, heartbeat.load
    agent.last_seen_at = tx.now


def rows() -> Select[Agent]:
    """Select all agents, for a list."""
    return select(Agent)


def remove(tx: Tx, agent: Agent) -> None:
    """Delete an agent and its credentials. Its devices go offline but are kept."""
    tokens.revoke_agent(tx, agent.id)
    tx.session.execute(delete(Agent).where(Agent.id == agent.id))
