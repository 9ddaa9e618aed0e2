"""Agent leases: work lent to an agent for a time. A machine has one active lease; an expired lease returns its items to
the queue.

    active -> completed | failed (given back by its agent) | expired

The `epoch` of a lease shuts out earlier leases of the machine: it is higher than their epochs, and each result names
its lease's epoch. All times come from the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ForeignKey, Index, String, func, select, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from hw_profiles.wire.bounds import LEASE_S
from hw_profiles.wire.heartbeat import Action, Heartbeat, HeartbeatAnswer
from hw_profiles.wire.lease import LeaseRequest
from hw_profiles.wire.result import Completion, Surrender
from service.devices import anchors, quarantine
from service.errors import Conflict, Forbidden, Gone, NotFound
from service.store.base import Base, Tx, new_id
from service.store.devices import agents, conversions, devices, fusions, measurements, work_items
from service.store.devices.agents import Agent
from service.store.devices.devices import Device
from service.store.devices.work_items import WorkItem

LEASE = timedelta(seconds=LEASE_S)
LATE = "its agent sent no heartbeat in time"
BLAMELESS = frozenset({"cancelled", "drained"})
"""Reasons for ending a lease that do not count as a failed attempt at its items."""


class LeaseItem(Base):
    """One file (or pair of files) of a lease. `role` is `item` or `anchor`; `state` is open, ok, failed or rejected.

    `op` is set for blocks; `latency_us` is set by the result of an anchor.
    """

    __tablename__ = "agent_lease_items"
    lease_id: Mapped[str] = mapped_column(ForeignKey("agent_leases.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    role: Mapped[str] = mapped_column(String(16))
    op: Mapped[dict[str, Any] | None]
    sha256: Mapped[str] = mapped_column(String(64))
    single_sha256: Mapped[str | None] = mapped_column(String(64))
    suffix: Mapped[str | None] = mapped_column(String(16))
    expected_us: Mapped[float | None]
    reference_us: Mapped[float | None]
    latency_us: Mapped[float | None]
    state: Mapped[str] = mapped_column(String(16), default="open")
    number: Mapped[int]


class AgentLease(Base):
    """Items of one device, lent to one agent. `kind` is the kind of the items; `scale` is computed from the anchors."""

    __tablename__ = "agent_leases"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    agent_id: Mapped[str] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"), index=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"), index=True)
    machine: Mapped[str] = mapped_column(String(32), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    measurement_id: Mapped[str | None] = mapped_column(String(40))
    epoch: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default="active")
    reason: Mapped[str] = mapped_column(String(2000), default="")
    granted_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    items: Mapped[list[LeaseItem]] = relationship(order_by=LeaseItem.number, passive_deletes=True)
    __table_args__ = (
        Index(
            "uq_agent_leases_active_machine",
            "machine",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )

    def alive(self, now: datetime) -> bool:
        """True if the agent of the lease may still report results."""
        return self.state == "active" and now < self.expires_at


def own(tx: Tx, lease_id: str, agent_id: str) -> AgentLease:
    """Return this agent's lease with this id. The lease and its machine's devices are locked until the transaction
    ends.

    Raises:
        NotFound: there is no such lease.
        Forbidden: the lease belongs to another agent.
    """
    machine = tx.session.execute(select(AgentLease.machine).where(AgentLease.id == lease_id)).scalar_one_or_none()
    if machine is None:
        raise NotFound("lease", lease_id)
    devices.of_machine(tx, machine, lock=True)
    wanted = select(AgentLease).where(AgentLease.id == lease_id).with_for_update()
    lease = tx.session.execute(wanted.execution_options(populate_existing=True)).scalar_one()
    if lease.agent_id != agent_id:
        raise Forbidden("this lease belongs to another agent", code="foreign_lease")
    return lease


def held(lease: AgentLease, epoch: int, now: datetime) -> None:
    """Check that the lease is still valid.

    Raises:
        Conflict: `epoch` is not the epoch of this lease.
        Gone: the lease expired or was given back.
    """
    if epoch != lease.epoch:
        raise Conflict(f"epoch {epoch} is not the epoch of this lease ({lease.epoch})", code="lease_lost")
    if not lease.alive(now):
        raise Gone(f"the lease is over: {lease.state if lease.state != 'active' else 'expired'}", code="lease_expired")


def grant(tx: Tx, agent_id: str, request: LeaseRequest, digests: Mapping[str, work_items.Digests]) -> AgentLease | None:
    """Lease the next work to this agent; return None if there is none. `digests` has the file digests of blocks that
    were not leased before.

    Networks come first, and all networks of one measurement are leased together. Then come blocks by priority, all from
    one device. A quarantined device whose trial is due comes before all of them.

    Raises:
        Forbidden: a device does not belong to this agent.
    """
    agent = agents.get(tx, agent_id)
    devices.of_machine(tx, agent.machine, lock=True)  # makes concurrent requests wait for each other
    repeated = _end_stale(tx, agent)
    if repeated is not None:
        return repeated
    if agent.drain or _active_on(tx, agent.machine) is not None:
        return None
    on_trial = trial(tx, agent, request)
    if on_trial is not None:
        return _lend(tx, agent, on_trial, [])
    chosen = work_items.next_work(tx, usable(tx, agent, request), request.max_items, request.kinds)
    ready = [item for item in chosen if work_items.digested(item, digests)]
    return _lend(tx, agent, devices.get(tx, ready[0].device_id), ready) if ready else None


def usable(tx: Tx, agent: Agent, request: LeaseRequest) -> list[str]:
    """Return ids of the wanted devices that may get work. Deleted devices are skipped until the agent knows of the
    deletion.

    Raises:
        Forbidden: a device does not belong to this agent.
    """
    mine = {device.id: device for device in devices.of_machine(tx, agent.machine) if device.agent_id == agent.id}
    wanted = [device_id for device_id in request.device_ids if device_id not in (agent.removed or ())]
    foreign = [device_id for device_id in wanted if device_id not in mine]
    if foreign:
        raise Forbidden(f"device {foreign[0]!r} does not belong to this agent", code="foreign_device")
    return [device_id for device_id in wanted if not mine[device_id].quarantined]


def trial(tx: Tx, agent: Agent, request: LeaseRequest) -> Device | None:
    """Return the device that may show in a lease of its anchors alone that its timings can be trusted again."""
    return quarantine.due(tx, agent, request.device_ids) if "block" in request.kinds else None


def has_stale(tx: Tx, agent: Agent) -> bool:
    """True if a lease of this machine must be ended because it is overdue or because its agent is asking for new
    work.
    """
    lease = _active_on(tx, agent.machine)
    return lease is not None and (lease.agent_id == agent.id or not lease.alive(tx.now))


def _active_on(tx: Tx, machine: str) -> AgentLease | None:
    active = select(AgentLease).where(AgentLease.machine == machine, AgentLease.state == "active")
    return tx.session.execute(active).scalar_one_or_none()


def _end_stale(tx: Tx, agent: Agent) -> AgentLease | None:
    """End a lease that keeps the machine from new work. If an agent has an untouched lease and asks again, it probably
    missed the answer, so it gets the same lease again.
    """
    lease = _active_on(tx, agent.machine)
    if lease is None:
        return None
    if not lease.alive(tx.now):
        lose(tx, lease, "expired", LATE, blame=True)
    elif lease.agent_id == agent.id:
        if lease.expires_at == lease.granted_at + LEASE and all(item.state == "open" for item in lease.items):
            return lease
        lose(tx, lease, "failed", "its agent asked for new work", blame=True)
    return None


def abandon(tx: Tx, agent: Agent) -> None:
    """End the lease of an agent that has restarted."""
    lease = _active_on(tx, agent.machine)
    if lease is not None and lease.agent_id == agent.id:
        lose(tx, lease, "failed", "its agent restarted", blame=True)


def _lend(tx: Tx, agent: Agent, device: Device, items: list[WorkItem]) -> AgentLease:
    """Lend these items of a device; without items, its anchors alone."""
    newest = select(func.max(AgentLease.epoch)).where(AgentLease.machine == agent.machine)
    lease = AgentLease(
        id=new_id("lse"),
        agent_id=agent.id,
        device_id=device.id,
        machine=agent.machine,
        kind=items[0].kind if items else "block",
        measurement_id=items[0].measurement_id if items else None,
        epoch=(tx.session.execute(newest).scalar_one() or 0) + 1,
        granted_at=tx.now,
        expires_at=tx.now + LEASE,
    )
    tx.session.add(lease)
    for number, item in enumerate(items):
        item.state, item.lease_id = "leased", lease.id
        lease.items.append(_lent(item, number))
    if lease.kind == "block":
        known = {item.key for item in items}
        extra = [anchor for anchor in device.anchors if anchor["key"] not in known]
        lease.items.extend(_anchor(anchor, len(items) + index) for index, anchor in enumerate(extra))
    if lease.measurement_id is not None:
        measurements.start(tx, lease.measurement_id, device)
    device.busy_until = lease.expires_at
    tx.session.flush()
    devices.refresh_states(tx, agent.machine)
    return lease


def _lent(item: WorkItem, number: int) -> LeaseItem:
    assert item.sha256 is not None
    return LeaseItem(
        key=item.key,
        kind=item.kind,
        role="item",
        op=item.op,
        sha256=item.sha256,
        single_sha256=item.single_sha256,
        suffix=item.suffix,
        expected_us=work_items.expected_us(item),
        state="open",
        number=number,
    )


def _anchor(anchor: Mapping[str, Any], number: int) -> LeaseItem:
    names = ("key", "op", "sha256", "single_sha256", "reference_us")
    values = {name: anchor[name] for name in names}
    return LeaseItem(**values, kind="block", role="anchor", state="open", number=number)


def beat(tx: Tx, agent: Agent, heartbeat: Heartbeat) -> HeartbeatAnswer:
    """Note a heartbeat and extend the lease that the heartbeat names; return what the agent should do.

    Raises:
        NotFound: there is no such lease.
        Forbidden: the lease belongs to another agent.
    """
    devices.of_machine(tx, agent.machine, lock=True)
    agents.heard(tx, agent, heartbeat)
    devices.seen(tx, agent.id)
    removed = tuple(agent.removed or ())
    action: Action = "drain" if agent.drain else "removed" if removed else "continue"
    if heartbeat.lease_id is not None:
        lease = own(tx, heartbeat.lease_id, agent.id)
        if lease.state == "active" and not lease.alive(tx.now):
            lose(tx, lease, "expired", LATE, blame=True)
        if lease.state != "active" or _unwanted(tx, lease):
            action = "cancel"
        else:
            lease.expires_at = tx.now + LEASE
            devices.get(tx, lease.device_id).busy_until = lease.expires_at
    tx.session.flush()
    tx.session.expire_all()
    devices.refresh_states(tx, agent.machine)
    return HeartbeatAnswer(action, removed if action == "removed" else ())


def _unwanted(tx: Tx, lease: AgentLease) -> bool:
    """True if nothing is waiting for the lease's results any more."""
    if lease.measurement_id is None:
        return work_items.unwanted(tx, lease.id)
    return measurements.measurement(tx, lease.measurement_id).state == "failed"


def complete(tx: Tx, lease: AgentLease, completion: Completion) -> None:
    """End a lease whose agent has reported everything; items without a result are queued again. Idempotent.

    Raises:
        Conflict: `epoch` is not the epoch of this lease.
        Gone: the lease expired or was given back.
    """
    if lease.state == "completed" and completion.epoch == lease.epoch:
        return
    held(lease, completion.epoch, tx.now)
    device = devices.get(tx, lease.device_id)
    lose(tx, lease, "completed", "the agent reported no result for this item", blame=True)
    if lease.kind == "block":
        anchors.finish(tx, device, [(item.reference_us, item.latency_us) for item in lease.items], lease.id)
        left = work_items.outstanding(tx, device.id)
        data = {"device_id": device.id, "epoch": device.epoch, "outstanding": left}
        tx.emit(f"device:{device.id}", "table.filled", data)
        if left == 0:
            measurements.recalibrate(tx, device)


def surrender(tx: Tx, lease: AgentLease, surrendered: Surrender) -> None:
    """End a lease that its agent gives back. Idempotent.

    Raises:
        Conflict: `epoch` is not the epoch of this lease.
        Gone: the lease expired or was given back.
    """
    if lease.state == "failed" and surrendered.epoch == lease.epoch:
        return
    held(lease, surrendered.epoch, tx.now)
    reason = f"{surrendered.error_class}: {surrendered.detail}"
    lose(tx, lease, "failed", reason, blame=surrendered.error_class not in BLAMELESS)


def lose(tx: Tx, lease: AgentLease, state: str, reason: str, *, blame: bool) -> None:
    """End an active lease. The lease's open items are queued again."""
    lease.state, lease.reason, lease.finished_at = state, reason[:2000], tx.now
    devices.get(tx, lease.device_id).busy_until = None
    open_items = select(WorkItem).where(WorkItem.lease_id == lease.id, WorkItem.state == "leased")
    lost = tx.session.execute(open_items).scalars().all()
    if lease.measurement_id is not None:
        if lost:
            measurements.lose(tx, lease.measurement_id, reason, blame=blame)
    else:
        for item in lost:
            _GIVE_BACK.get(item.kind, work_items.give_back)(tx, item, reason, blame=blame)
        tx.session.flush()
        work_items.drop_unwanted(tx)
    tx.session.flush()
    devices.refresh_states(tx, lease.machine)


_GIVE_BACK = {"fusion": fusions.give_back, "check": conversions.give_back}


def sweep(tx: Tx) -> int:
    """End all overdue leases and report devices that went offline; return how many leases ended."""
    devices.lock_all(tx)
    overdue = select(AgentLease).where(AgentLease.state == "active", AgentLease.expires_at <= tx.now)
    ended = tx.session.execute(overdue.with_for_update(skip_locked=True)).scalars().all()
    for lease in ended:
        lose(tx, lease, "expired", LATE, blame=True)
    devices.refresh_states(tx)
    return len(ended)
