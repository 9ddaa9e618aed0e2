"""Anchors of a device: blocks of known latency, timed again with every lease of blocks.

The ratio of the anchors' new latencies to the known latencies is the session's scale. A session whose scale is too far
off is refused, and its blocks are timed again. If a device's sessions are refused repeatedly, the device is quarantined
until a later session is accepted, or its agent restarts and passes its self-test.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from sqlalchemy import select

from hw_profiles import runtimes
from hw_profiles.tables.anchors import Session, session
from hw_profiles.tables.probe import Probe, probe
from service.devices import quarantine
from service.store.base import Tx
from service.store.devices import devices, latency
from service.store.devices.devices import Device
from service.store.devices.latency import LatencyRow
from service.store.devices.work_items import by_key

log = logging.getLogger(__name__)

ANCHORS = 6
"""Number of anchors. This is a choice: single blocks scatter around a session's scale, and the median of six blocks
scatters less than a single block. On the shared machine where this was observed, single blocks scattered by 2-3 % (no
rows were kept).
"""
LEAST = 3
"""Number of rows that a first lease must have before anchors are chosen from it."""
SMOOTHING = 0.2
"""Weight of the newest session in the running mean of scales. This is a choice, because a single session is off by a
few percent (`session_scale` in the rows of benchmarks/predictor_accuracy.py).
"""
Pair = tuple[float | None, float | None]


def judge(pairs: Iterable[Pair]) -> Session | None:
    """Judge a session by the (reference, measured) latencies of its anchors; return None if no anchor was measured.

    Items without a reference are not anchors and are ignored.
    """
    known = {str(i): (r, m) for i, (r, m) in enumerate(pairs) if r is not None and m is not None and m > 0}
    if not known:
        return None
    references = {key: reference for key, (reference, _) in known.items()}
    # All models of a lease are timed round-robin: drift affects all of them equally, and the anchors' bursts
    # span the whole lease.
    latencies = {key: measured for key, (_, measured) in known.items()}
    return session(references, latencies, latencies)


def finish(tx: Tx, device: Device, pairs: Sequence[Pair], lease_id: str) -> None:
    """Update a device's scale, quarantine, first anchors and kernel classes after a finished lease of blocks."""
    seen = judge(pairs)
    if not _accepted(device, seen):
        device.refused += 1
        if device.refused >= quarantine.MAX_REFUSED:
            quarantine.begin(tx, device)
        devices.refresh_states(tx, device.machine)
        return
    device.refused = 0
    if device.quarantined:
        quarantine.end(device)
        devices.refresh_states(tx, device.machine)
    if seen is not None:
        device.scale += SMOOTHING * (seen.scale - device.scale)
    if not device.anchors:
        _choose(tx, device, lease_id)
    if device.classes is None:
        _learn(tx, device)


def _accepted(device: Device, seen: Session | None) -> bool:
    """True if the session's timings count. Only measured anchors can end a quarantine."""
    return not device.quarantined if seen is None else seen.accepted


def _choose(tx: Tx, device: Device, lease_id: str) -> None:
    """Choose the anchors from the rows of the first lease, spread evenly from the median latency to the largest."""
    wanted = select(LatencyRow).where(LatencyRow.lease_id == lease_id, LatencyRow.status == "ok")
    rows = [row for row in tx.session.scalars(wanted.order_by(LatencyRow.latency_us)) if row.latency_us > 0]
    if len(rows) < LEAST:
        return
    chosen = [rows[rank] for rank in np.linspace(len(rows) // 2, len(rows) - 1, ANCHORS).round().astype(int)]
    device.anchors = [
        {
            "key": row.key,
            "op": row.op,
            "sha256": item.sha256,
            "single_sha256": item.single_sha256,
            "reference_us": row.latency_us,
        }
        for row in {row.key: row for row in chosen}.values()
        if (item := by_key(tx, device.id, row.key)) is not None
    ]


def _learn(tx: Tx, device: Device) -> None:
    """Learn the kernel classes once both probe curves are in the table."""
    curves = _probe()
    keys = {op.key for op in curves.ops}
    if not keys <= latency.measured(tx, device):
        return
    rows = latency.table(tx, device.id).rows
    drawn = curves.curves({key: rows[key].latency_us for key in keys})
    assumed = runtimes.assumed(device.runtime)
    if assumed:
        log.warning("device %s: %s", device.name, assumed)
    latency.record_classes(tx, device.id, runtimes.learned(device.runtime, drawn))


@cache
def _probe() -> Probe:
    return probe()
