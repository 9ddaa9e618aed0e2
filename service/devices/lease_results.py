"""Results of leases: accepted once, and only from the agent that holds the lease."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from hw_profiles.ops import Op
from hw_profiles.tables.table import Row
from hw_profiles.timing.copies_timing import slope_timing
from hw_profiles.timing.protocol import Timing
from hw_profiles.wire.result import Bursts, Result
from service.devices import anchors
from service.errors import Conflict, Gone, InvalidInput, NotFound
from service.store.base import Tx
from service.store.devices import conversions, devices, fusions, latency, measurements, work_items
from service.store.devices.agent_leases import AgentLease, LeaseItem
from service.store.devices.work_items import WorkItem


def put(tx: Tx, lease: AgentLease, key: str, result: Result) -> None:
    """Store the result of one item. The first result counts; a second result for the same key is accepted and ignored.

    Raises:
        NotFound: the lease has no such key.
        Conflict: the lease was lost and the key is done.
        Gone: the lease was lost and the key is queued or leased again.
        InvalidInput: a block's result lacks one of its models, or the result is of the wrong kind.
    """
    lent = tx.session.get(LeaseItem, (lease.id, key))
    if lent is None:
        raise NotFound("key in this lease", key)
    if lent.state != "open":
        return
    if result.epoch != lease.epoch:
        raise Conflict(f"epoch {result.epoch} is not the epoch of this lease ({lease.epoch})", code="lease_lost")
    item = work_items.of_lease(tx, lease.id, key)
    if not lease.alive(tx.now) or (lent.role == "item" and item is None):
        _refuse(tx, lease, key)
    _check(lent, result)
    lent.state = "ok" if result.failure is None else "failed"
    if lent.role == "anchor":
        lent.latency_us = None if result.failure else _slope(key, result).quiet_us
    elif item is not None and item.kind == "network":
        measurements.record(tx, item, result)
    elif item is not None and item.kind == "fusion":
        fusions.record(tx, item, result)
    elif item is not None and item.kind == "check":
        conversions.record(tx, item, result)
    elif item is not None:
        _put_block(tx, lease, lent, item, result)
    tx.session.flush()


def _check(lent: LeaseItem, result: Result) -> None:
    if result.failure is not None:
        return
    wanted = {"fusion": "fused", "check": "converted"}.get(lent.kind, "bursts")
    if getattr(result, wanted) is None:
        raise InvalidInput(wanted, None, f"is missing from the result of a {lent.kind}")
    if lent.kind == "block" and result.single is None:
        raise InvalidInput("single", None, "the result of a block needs the bursts of both of its models")


def _refuse(tx: Tx, lease: AgentLease, key: str) -> None:
    """Refuse a result that comes too late."""
    now = work_items.by_key(tx, lease.device_id, key)
    if now is None or now.state not in work_items.OPEN:
        raise Conflict(f"the lease was lost, and {key} is done", code="lease_lost")
    raise Gone("the lease has expired; the item went back to the queue", code="lease_expired")


def _slope(key: str, result: Result) -> Timing:
    assert result.single is not None
    assert result.bursts is not None
    return slope_timing(result.single.sample(key), result.bursts.sample(key))


def _put_block(tx: Tx, lease: AgentLease, lent: LeaseItem, item: WorkItem, result: Result) -> None:
    if result.failure == "error":  # the runtime refused the item, and would refuse it again
        item.state, item.reason = "failed", result.reason
        return
    if result.failure is not None:  # the process crashed or timed out, so another attempt may succeed
        work_items.give_back(tx, item, f"{result.failure}: {result.reason}", blame=True)
        return
    device = devices.get(tx, lease.device_id)
    seen = anchors.judge(_anchors(tx, lease))
    scale = 1.0 if seen is None else seen.scale
    accepted = seen is None or seen.accepted
    assert lent.op is not None
    op = Op.from_json(lent.op)
    row = Row.of(op, _slope(lent.key, result), scale)
    bursts = {"many": _plain(result.bursts), "single": _plain(result.single)}
    latency.add_row(tx, device, row, op=op, bursts=bursts, scale=scale, accepted=accepted, lease_id=lease.id)
    if accepted:
        item.state = "done"
        return
    lent.state = "rejected"
    work_items.give_back(tx, item, f"the anchors were off by a factor of {scale:.3f}", blame=False)


def _anchors(tx: Tx, lease: AgentLease) -> Sequence[anchors.Pair]:
    """Return the lease's anchor latencies so far. The query is small because it runs for each item."""
    pairs = select(LeaseItem.reference_us, LeaseItem.latency_us)
    rows = tx.session.execute(pairs.where(LeaseItem.lease_id == lease.id, LeaseItem.role == "anchor"))
    return [(reference_us, latency_us) for reference_us, latency_us in rows]


def _plain(bursts: Bursts | None) -> dict[str, object] | None:
    return None if bursts is None else bursts.to_json()
