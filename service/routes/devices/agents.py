"""Agents: enrolment, restarts and heartbeats."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, RootModel
from sqlalchemy.orm import InstrumentedAttribute
from starlette.responses import Response

from hw_profiles.errors import install_command
from hw_profiles.wire.bounds import PROTOCOL
from hw_profiles.wire.enrolment import Enrolled, Enrolment
from hw_profiles.wire.heartbeat import Heartbeat, HeartbeatAnswer
from service.depends import AgentDep, CallerDep, EnrolmentDep, OnceDep, Page, PageDep, StoreDep, UserDep, paged
from service.errors import Forbidden, UpgradeRequired
from service.http.idempotency import Answer
from service.http.problem_details import documented
from service.store import tokens
from service.store.base import Tx
from service.store.devices import agent_leases, agents, device_offers
from service.store.devices.agents import Agent

router = APIRouter(prefix="/api/v1/agents", tags=["agents"])

SPOKEN = frozenset({PROTOCOL, PROTOCOL - 1}) - {0}
UPGRADE = f"git pull && {install_command('agent')}"
SORTABLE: dict[str, InstrumentedAttribute[object]] = {
    "machine": Agent.machine,
    "name": Agent.name,
    "created_at": Agent.created_at,
    "last_seen_at": Agent.last_seen_at,
}
AgentId = Annotated[str, Path(max_length=80)]


async def _spoken(request: Request, _caller: CallerDep) -> None:
    """Refuse an unsupported protocol before the rest of the body is checked."""
    try:
        body = await request.json()
    except ValueError:
        return  # the check of the body will report the fault
    seen = body.get("protocol") if isinstance(body, dict) else None
    if isinstance(seen, int) and seen not in SPOKEN:
        whose = "this server: it" if seen > PROTOCOL else f"the agent with: {UPGRADE}; the server"
        raise UpgradeRequired(f"protocol {seen} is not supported here; upgrade {whose} supports {sorted(SPOKEN)}")


class AgentPublic(BaseModel):
    """An agent in its public form."""

    id: str
    name: str
    machine: str
    state: str
    alive: bool
    done: int
    total: int
    temperature_c: float | None
    load: float | None


@router.post(
    "",
    status_code=201,
    response_model=Enrolled,
    dependencies=[Depends(_spoken)],
    responses=documented(401, 403, 409, 422, 426),
)
def enrol_agent(body: Enrolment, caller: EnrolmentDep, once: OnceDep) -> Response:
    """Exchange a one-time enrolment token for an agent's token."""

    def make(tx: Tx) -> Answer:
        tokens.use(tx, tx.session.get_one(tokens.Token, caller.token_id))
        agent = agents.enrol(tx, body)
        agent_leases.abandon(tx, agent)
        device_ids = tuple(device.id for device in device_offers.accept(tx, agent, body))
        secret = once.secret("agent")
        tokens.create(tx, "agent", agent.name, secret, agent_id=agent.id)
        made = Enrolled(agent.id, secret, device_ids)
        return Answer(RootModel[Enrolled](made), secret_field="token", secret_kind="agent")

    return once(make, of=body.to_json())


@router.put("/{agent_id}", dependencies=[Depends(_spoken)], responses=documented(401, 403, 409, 422, 426))
def announce_agent(agent_id: AgentId, body: Enrolment, store: StoreDep, caller: AgentDep) -> Enrolled:
    """Announce that an enrolled agent has restarted, perhaps with newer runtimes. The agent's lease ends."""
    with store.begin() as tx:
        agent = _self(tx, agent_id, caller.agent_id)
        agents.announce(tx, agent, body)
        agent_leases.abandon(tx, agent)
        device_ids = tuple(device.id for device in device_offers.accept(tx, agent, body))
    return Enrolled(agent.id, "", device_ids)


@router.post("/{agent_id}/heartbeat", response_model_exclude_defaults=True, responses=documented(401, 403, 404, 422))
def agent_heartbeat(agent_id: AgentId, body: Heartbeat, store: StoreDep, caller: AgentDep) -> HeartbeatAnswer:
    """Report that the agent is alive, and extend the lease that the report names."""
    with store.begin() as tx:
        return agent_leases.beat(tx, _self(tx, agent_id, caller.agent_id), body)


@router.get("", responses=documented(401, 403, 422))
def list_agents(store: StoreDep, _user: UserDep, page: PageDep) -> Page[AgentPublic]:
    """List all agents, by machine."""
    with store.read() as tx:
        return paged(tx, agents.rows(), page, SORTABLE, Agent.id, lambda agent: _public(tx, agent), "machine")


@router.post("/{agent_id}/drain", responses=documented(401, 403, 404, 409, 422))
def drain_agent(agent_id: AgentId, store: StoreDep, _user: UserDep) -> AgentPublic:
    """Let an agent finish its lease, and give it no more work until it restarts."""
    with store.begin() as tx:
        agent = agents.find(tx, agent_id)
        agent.drain = True
        return _public(tx, agent)


@router.delete("/{agent_id}", status_code=204, responses=documented(401, 403, 404, 409))
def remove_agent(agent_id: AgentId, store: StoreDep, _user: UserDep) -> None:
    """Revoke an agent's credentials. Its devices go offline, but they and their tables are kept."""
    with store.begin() as tx:
        agent = agents.find(tx, agent_id)
        agent_leases.abandon(tx, agent)
        agents.remove(tx, agent)


def _self(tx: Tx, agent_id: str, caller_id: str | None) -> Agent:
    """Return the calling agent.

    Raises:
        Forbidden: the token belongs to another agent.
    """
    if agent_id != caller_id:
        raise Forbidden("this token belongs to another agent", code="foreign_agent")
    return agents.get(tx, agent_id)


def _public(tx: Tx, agent: Agent) -> AgentPublic:
    return AgentPublic(
        id=agent.id,
        name=agent.name,
        machine=agent.machine,
        state=agent.state,
        alive=agent.alive(tx.now),
        done=agent.done,
        total=agent.total,
        temperature_c=agent.temperature_c,
        load=agent.load,
    )
