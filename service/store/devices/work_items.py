"""Work items: a device's queue of blocks and networks to time, and of networks to convert or to report fusions for.

queued -> leased -> done | failed (the device cannot run it)
  ^---------'  `-> poisoned (lost with its lease too often)

A queued item is deleted once no job and no user waits for it (service.store.devices.wishes). The networks of a
measurement are an exception: they are cancelled together with the measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import ForeignKey, Index, Integer, String, UniqueConstraint, delete, exists, func, select, update
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import BigInteger

from hw_profiles.ops import Op
from hw_profiles.tables.features import features_of
from hw_profiles.timing.copies_timing import COPIES
from hw_profiles.wire.lease import ITEM_KINDS, ItemKind
from service.errors import InvalidInput
from service.store.base import Base, Tx
from service.store.devices import devices, latency, wishes
from service.store.devices.devices import Device
from service.store.devices.wishes import USER, Wish

Digests: TypeAlias = tuple[str, str]
"""sha256 of a block's two timing models: the model with many copies and the model with one copy."""

SLOW_MACS_PER_US = 200.0
"""Speed of the slowest device for which deadlines are long enough: 0.2 GMAC/s, a tenth of the speed of a small ARM
board's core.
"""
CALL_US = 100.0
BACK_OFF_S = (5.0, 10.0, 20.0)
"""Delay of an item after its first, second and third lost attempt; the fourth lost attempt poisons the item."""
OPEN = ("queued", "leased")
REFUSED = ("failed", "poisoned")


class WorkItem(Base):
    """A block (`op`) or network (`measurement_id`, `sha256`) to time on a device, a `fusion` (`sha256`) to report, or a
    `check` (`sha256`, with the samples in `single_sha256`) to convert and run.

    `sha256` and `single_sha256` are the digests of the files; a block's digests are set at its first lease. `suffix` is
    the suffix of a network's file name; None for an ONNX file. `available_at` is the earliest time to lease the item.
    """

    __tablename__ = "work_items"
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    key: Mapped[str] = mapped_column(String(80))
    op: Mapped[dict[str, Any] | None]
    measurement_id: Mapped[str | None] = mapped_column(String(40), index=True)
    sha256: Mapped[str | None] = mapped_column(String(64))
    single_sha256: Mapped[str | None] = mapped_column(String(64))
    suffix: Mapped[str | None] = mapped_column(String(16))
    priority: Mapped[float]
    state: Mapped[str] = mapped_column(String(16), default="queued")
    attempt: Mapped[int] = mapped_column(default=0)
    available_at: Mapped[datetime]
    lease_id: Mapped[str | None] = mapped_column(String(40), index=True)
    reason: Mapped[str] = mapped_column(String(2000), default="")
    created_at: Mapped[datetime]
    __table_args__ = (
        UniqueConstraint("device_id", "key"),
        Index("ix_work_items_queue", "device_id", "state", "kind"),
    )


def fill(tx: Tx, device_id: str, ops: Sequence[Op], priority: Sequence[float], job_id: str = USER) -> int:
    """Ask for the rows of `ops` on behalf of a job, the highest priority first; return the number of new items.

    Idempotent by op key: measured ops are not queued again, queued ops get the higher of the two priorities, and ops
    that the device cannot run stay refused.

    Raises:
        NotFound: there is no such device.
        InvalidInput: the numbers of priorities and ops differ.
    """
    if len(ops) != len(priority):
        raise InvalidInput("priority", len(priority), f"must be as many as ops, {len(ops)}")
    device = devices.get(tx, device_id)
    wanted: dict[str, tuple[Op, float]] = {}
    for op, weight in zip(ops, priority, strict=True):
        known = wanted.get(op.key)
        wanted[op.key] = (op, weight if known is None else max(weight, known[1]))
    for key in latency.measured(tx, device):
        wanted.pop(key, None)
    waiting = [item for item in _blocks(tx, device) if item.key in wanted]
    for item in waiting:
        item.priority = max(item.priority, wanted.pop(item.key)[1])
    fresh = [_block(device, op, weight, tx.now) for op, weight in wanted.values()]
    tx.session.add_all(fresh)
    tx.session.flush()
    wishes.add(tx, [item.id for item in (*waiting, *fresh)], job_id)
    return len(fresh)


def withdraw(tx: Tx, job_id: str) -> None:
    """Withdraw a job's requests: items that are queued only for this job leave the queue."""
    if wishes.forget(tx, job_id):
        devices.lock_all(tx)  # a lease that is being granted is finished first, and its items stay
        drop_unwanted(tx)


def drop_unwanted(tx: Tx) -> None:
    """Delete queued blocks and questions that neither a job nor a user waits for."""
    idle = (WorkItem.kind != "network") & (WorkItem.state == "queued") & ~exists().where(Wish.item_id == WorkItem.id)
    tx.session.execute(delete(WorkItem).where(idle))


def unwanted(tx: Tx, lease_id: str) -> bool:
    """True if a lease of blocks or questions has open items and nothing waits for any of them."""
    lent = select(WorkItem.id).where(WorkItem.lease_id == lease_id, WorkItem.state == "leased")
    waited_for = lent.where(exists().where(Wish.item_id == WorkItem.id))
    found = [tx.session.execute(rows.limit(1)).scalar_one_or_none() for rows in (lent, waited_for)]
    return found[0] is not None and found[1] is None


def _blocks(tx: Tx, device: Device) -> Sequence[WorkItem]:
    rows = select(WorkItem).where(WorkItem.device_id == device.id, WorkItem.kind == "block")
    return tx.session.execute(rows).scalars().all()


def _block(device: Device, op: Op, priority: float, now: datetime) -> WorkItem:
    return WorkItem(
        device_id=device.id,
        kind="block",
        key=op.key,
        op=op.to_json(),
        priority=priority,
        available_at=now,
        created_at=now,
    )


def outstanding(tx: Tx, device_id: str) -> int:
    """Count the blocks of a device that are queued or being measured."""
    rows = select(func.count(WorkItem.id)).where(WorkItem.device_id == device_id, WorkItem.kind == "block")
    return tx.session.execute(rows.where(WorkItem.state.in_(OPEN))).scalar_one()


def refused(tx: Tx, device_id: str) -> Sequence[WorkItem]:
    """Return the blocks that the device cannot run or that were lost too often; `reason` says which."""
    rows = select(WorkItem).where(WorkItem.device_id == device_id, WorkItem.kind == "block")
    return tx.session.execute(rows.where(WorkItem.state.in_(REFUSED))).scalars().all()


def give_back(tx: Tx, item: WorkItem, reason: str, *, blame: bool) -> None:
    """Put a leased item back into the queue. With `blame`, a failed attempt is counted, which delays the item and
    finally poisons it.
    """
    item.lease_id, item.reason = None, reason[:2000]
    item.state, item.available_at = "queued", tx.now
    if blame:
        item.attempt += 1
        if item.attempt > len(BACK_OFF_S):
            item.state = "poisoned"
        else:
            item.available_at = tx.now + timedelta(seconds=BACK_OFF_S[item.attempt - 1])


def ask_again(tx: Tx, device_id: str) -> None:
    """After a change of the device's configuration, delete finished items and queue refused items again."""
    mine = WorkItem.device_id == device_id
    tx.session.execute(delete(WorkItem).where(mine, WorkItem.state == "done", WorkItem.kind == "block"))
    again = update(WorkItem).where(mine, WorkItem.state.in_(REFUSED), WorkItem.kind == "block")
    tx.session.execute(again.values(state="queued", attempt=0, available_at=tx.now, lease_id=None, reason=""))


def next_work(
    tx: Tx, device_ids: Sequence[str], max_items: int, kinds: Sequence[ItemKind] = ITEM_KINDS
) -> list[WorkItem]:
    """Return the next work of these devices: all networks of one measurement; if no measurement is queued, fusions,
    checks or blocks of one device.
    """
    queued = (
        select(WorkItem)
        .where(WorkItem.device_id.in_(device_ids), WorkItem.state == "queued", WorkItem.available_at <= tx.now)
        .order_by(WorkItem.priority.desc(), WorkItem.id)
    )
    for kind in [kind for kind in ("network", "fusion", "check", "block") if kind in kinds]:
        alike = queued.where(WorkItem.kind == kind)
        first = tx.session.execute(alike.limit(1)).scalar_one_or_none()
        if first is not None:
            one_device = alike.where(WorkItem.device_id == first.device_id).limit(max_items)
            together = alike.where(WorkItem.measurement_id == first.measurement_id)
            return list(tx.session.execute(together if kind == "network" else one_device).scalars())
    return []


def digested(item: WorkItem, digests: Mapping[str, Digests]) -> bool:
    """Set the digests of a block's files if they are missing; return True if the digests are known now."""
    if item.sha256 is None and item.key in digests:
        item.sha256, item.single_sha256 = digests[item.key]
    return item.sha256 is not None


def refuse(tx: Tx, device_id: str, key: str, reason: str) -> None:
    """Mark a queued block as failed because no device can time it."""
    mine = update(WorkItem).where(WorkItem.device_id == device_id, WorkItem.key == key, WorkItem.state == "queued")
    tx.session.execute(mine.values(state="failed", reason=reason[:2000]))


def expected_us(item: WorkItem) -> float | None:
    """Return a generous estimate of the time for one run of a block's larger model; None for networks."""
    if item.op is None:
        return None
    return CALL_US + COPIES[1] * features_of(Op.from_json(item.op))["macs"] / SLOW_MACS_PER_US


def of_lease(tx: Tx, lease_id: str, key: str) -> WorkItem | None:
    """Return the item with this key if it belongs to this lease."""
    rows = select(WorkItem).where(WorkItem.lease_id == lease_id, WorkItem.key == key, WorkItem.state == "leased")
    return tx.session.execute(rows).scalar_one_or_none()


def by_key(tx: Tx, device_id: str, key: str) -> WorkItem | None:
    """Return the item with this key, in any state."""
    rows = select(WorkItem).where(WorkItem.device_id == device_id, WorkItem.key == key)
    return tx.session.execute(rows).scalar_one_or_none()
