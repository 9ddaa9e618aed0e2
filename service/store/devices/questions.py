"""Questions: work items that a device answers with facts instead of timings, while a run or a user waits for the
answer.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, exists
from sqlalchemy.orm import InstrumentedAttribute

from hw_profiles.wire.lease import ItemKind
from service.store.base import Tx
from service.store.devices import wishes, work_items
from service.store.devices.devices import Device
from service.store.devices.work_items import WorkItem

FIRST_OF_ALL = 1e12
"""Priority of questions. It is high because questions are answered quickly."""


def queue(tx: Tx, device: Device, kind: ItemKind, key: str, files: tuple[str, str | None], job_id: str) -> None:
    """Queue a question on behalf of a job unless it is queued already. `files` has the digests of the files to send."""
    item = _queued(tx, device, kind, key, files)
    tx.session.flush()
    wishes.add(tx, [item.id], job_id)


def _queued(tx: Tx, device: Device, kind: ItemKind, key: str, files: tuple[str, str | None]) -> WorkItem:
    item = work_items.by_key(tx, device.id, key)
    if item is None:
        item = WorkItem(device_id=device.id, kind=kind, key=key, priority=FIRST_OF_ALL)
        item.created_at = tx.now
        tx.session.add(item)
    elif item.state in work_items.OPEN:
        return item  # the queued question will get the same answer
    item.state, item.attempt, item.available_at = "queued", 0, tx.now
    item.lease_id, item.reason = None, ""
    item.sha256, item.single_sha256 = files
    return item


def is_open(
    device_id: InstrumentedAttribute[str], config_id: InstrumentedAttribute[str], key: ColumnElement[str]
) -> ColumnElement[bool]:
    """Return an SQL condition: the device's current configuration has not answered the question yet."""
    here = (Device.id == device_id) & (Device.config_id == config_id)
    asked = (WorkItem.device_id == device_id) & (WorkItem.key == key) & WorkItem.state.in_(work_items.OPEN)
    return exists().where(here, asked)
