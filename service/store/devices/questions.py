"""Questions: work items that a device answers with facts and not with timings; a run or a user waits for the answer."""

from __future__ import annotations

from hw_profiles.wire.lease import ItemKind
from service.store.base import Tx
from service.store.devices import work_items
from service.store.devices.devices import Device
from service.store.devices.work_items import WorkItem

FIRST_OF_ALL = 1e12
"""Priority of questions. It is high because questions are answered quickly."""


def queue(tx: Tx, device: Device, kind: ItemKind, key: str, files: tuple[str, str | None]) -> None:
    """Queue a question unless it is queued already. `files` has the digests of the files to send."""
    item = work_items.by_key(tx, device.id, key)
    if item is None:
        item = WorkItem(device_id=device.id, kind=kind, key=key, priority=FIRST_OF_ALL)
        item.created_at = tx.now
        tx.session.add(item)
    elif item.state in work_items.OPEN:
        return  # the queued question will get the same answer
    item.state, item.attempt, item.available_at = "queued", 0, tx.now
    item.lease_id, item.reason = None, ""
    item.sha256, item.single_sha256 = files
