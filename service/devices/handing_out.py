"""Hand out work to agents without holding the store's lock while files are built."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select

import hw_profiles.errors
from hw_profiles.device import ONNX
from hw_profiles.ops import Op
from hw_profiles.wire.lease import ITEM_KINDS, Item, ItemKind, Lease, LeaseRequest, Protocol
from service.devices.timing_files import digests
from service.store.base import Tx
from service.store.devices import agent_leases, agents, measurements, work_items
from service.store.devices.agent_leases import AgentLease, LeaseItem
from service.store.devices.work_items import Digests
from service.store.engine import Store

BLOCK_ROUNDS = 30
"""Largest number of rounds. Among many models, a few always have halves that differ by more than 1 %
(`split_half` in rows of benchmarks/predictor_accuracy.py). With more rounds, the other models would only wait for these
few.
"""


def prepare(store: Store, agent_id: str, request: LeaseRequest) -> dict[str, Digests] | None:
    """Return the digests of the next work's files, for `agent_leases.grant`; None if there is no work.

    If there is no work, nothing is written to the store. Blocks that cannot be modelled are refused here.

    Raises:
        Forbidden: a device does not belong to this agent.
    """
    with store.read() as tx:
        agent = agents.get(tx, agent_id)
        usable = agent_leases.usable(tx, agent, request)
        next_items = work_items.next_work(tx, usable, request.max_items, request.kinds)
        stale = agent_leases.has_stale(tx, agent) or agent_leases.trial(tx, agent, request) is not None
        fresh = [(item.device_id, item.key, item.op) for item in next_items if item.sha256 is None]
    if not next_items and not stale:
        return None
    known, refused = _digests(fresh)
    if refused:
        with store.begin() as tx:
            for device_id, key, reason in refused:
                work_items.refuse(tx, device_id, key, reason)
    return known


def _digests(
    fresh: Sequence[tuple[str, str, dict[str, object] | None]],
) -> tuple[dict[str, Digests], list[tuple[str, str, str]]]:
    """Return digests by key, and (device, key, reason) of blocks that cannot be modelled."""
    known: dict[str, Digests] = {}
    refused: list[tuple[str, str, str]] = []
    for device_id, key, op in fresh:
        assert op is not None
        try:
            known[key] = digests(Op.from_json(op))
        except hw_profiles.errors.InvalidInput as error:
            refused.append((device_id, key, str(error)))
    return known, refused


def public(tx: Tx, lease: AgentLease) -> Lease:
    """Convert a lease to the form its agent receives."""
    protocol = Protocol(seed=lease.epoch, max_rounds=BLOCK_ROUNDS)
    if lease.measurement_id is not None:
        protocol = Protocol.from_json(measurements.measurement(tx, lease.measurement_id).protocol)
    return Lease(
        id=lease.id,
        epoch=lease.epoch,
        device_id=lease.device_id,
        items=tuple(_item(item) for item in lease.items if item.role == "item"),
        protocol=protocol,
        anchors=tuple(_item(item) for item in lease.items if item.role == "anchor"),
        expires_at=lease.expires_at.isoformat(),
    )


def _item(item: LeaseItem) -> Item:
    kind: ItemKind = next(kind for kind in ITEM_KINDS if kind == item.kind)
    return Item(item.key, kind, item.sha256, item.single_sha256, item.expected_us, item.suffix or ONNX)


def op_of_file(tx: Tx, lease: AgentLease, sha256: str) -> Op | None:
    """Return the block to which a file of this lease belongs; None for a network or samples.

    Raises:
        KeyError: the lease has no such file.
    """
    # Reads only one row of about seventy, because an agent requests each file separately.
    has_file = or_(LeaseItem.sha256 == sha256, LeaseItem.single_sha256 == sha256)
    item = tx.session.scalars(select(LeaseItem).where(LeaseItem.lease_id == lease.id, has_file)).first()
    if item is None:
        raise KeyError(sha256)
    return None if item.op is None else Op.from_json(item.op)
