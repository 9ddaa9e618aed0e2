"""Fusions: the nodes of a network that a device runs as one kernel, as reported by the device itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import ForeignKey, String, delete, literal, select
from sqlalchemy.orm import Mapped, mapped_column

from hw_profiles.wire.result import Result
from service.store.base import Base, Tx
from service.store.devices import devices, questions, work_items
from service.store.devices.devices import Device
from service.store.devices.wishes import USER
from service.store.devices.work_items import WorkItem

Sets: TypeAlias = tuple[frozenset[str], ...]
"""The sets of node names that run as one kernel."""


@dataclass(frozen=True)
class Told:
    """A device's answer about one network: the sets. If there are no sets, `failure` gives the reason."""

    sets: Sets = ()
    failure: str = ""


class Fusion(Base):
    """One network that a device was asked about. `sets` is None before the answer, and if the answer was a failure.

    `wiring` is explained in `hw_profiles.wiring`. `sha256` names the file to send; it is None once the file is no
    longer needed.
    """

    __tablename__ = "fusions"
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True)
    config_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    wiring: Mapped[str] = mapped_column(String(64), primary_key=True)
    sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    sets: Mapped[list[Any] | None]
    failure: Mapped[str] = mapped_column(String(2000), default="")
    created_at: Mapped[datetime]


def told(tx: Tx, device: Device, wirings: Iterable[str]) -> dict[str, Told]:
    """Return the device's answers by wiring, on its current configuration; unanswered wirings are left out."""
    wanted = set(wirings)
    mine = select(Fusion).where(Fusion.device_id == device.id, Fusion.config_id == device.config_id)
    rows = tx.session.execute(mine.where(Fusion.wiring.in_(wanted))).scalars()
    return {row.wiring: _told(row) for row in rows if row.sets is not None or row.failure}


def _told(row: Fusion) -> Told:
    return Told(tuple(frozenset(names) for names in row.sets or ()), row.failure)


def has_told(tx: Tx, device: Device) -> bool:
    """True if the device has answered about any network on its current configuration."""
    mine = select(Fusion.wiring).where(Fusion.device_id == device.id, Fusion.config_id == device.config_id)
    heard = mine.where(Fusion.sets.is_not(None) | (Fusion.failure != ""))
    return tx.session.execute(heard.limit(1)).scalar_one_or_none() is not None


def ask(tx: Tx, device_id: str, files: Mapping[str, str], job_id: str = USER) -> None:
    """Ask a device about networks on behalf of a job. The networks are given as wiring -> sha256 of a recorded blob.
    The device is asked about the same network again only if its answer was a failure.

    Raises:
        NotFound: there is no such device.
    """
    device = devices.get(tx, device_id)
    for wiring, sha256 in files.items():
        row = _row(tx, device, wiring)
        if row.sets is None:
            row.sha256, row.failure = sha256, ""
            any_file = sha256, None  # any file of a wiring will do
            questions.queue(tx, device, "fusion", key_of(wiring), any_file, job_id)
    tx.session.flush()


def _row(tx: Tx, device: Device, wiring: str) -> Fusion:
    row = tx.session.get(Fusion, (device.id, device.config_id, wiring))
    if row is None:
        names = {"device_id": device.id, "config_id": device.config_id, "wiring": wiring}
        row = Fusion(**names, sets=None, failure="", created_at=tx.now)
        tx.session.add(row)
    return row


def key_of(wiring: str) -> str:
    """Return the key of the work item. Its prefix distinguishes it from the keys of blocks, which are digests, too."""
    return f"fusion-{wiring}"


def record(tx: Tx, item: WorkItem, result: Result) -> None:
    """Store a device's answer about one network."""
    if result.fused is not None:
        _end(tx, item, "done", sets=[list(names) for names in result.fused])
    elif result.failure == "error":  # the runtime refused the network, and would refuse it again
        _end(tx, item, "failed", failure=result.reason or "the device gave no reason")
    else:  # the process crashed or timed out, so another attempt may succeed
        give_back(tx, item, f"{result.failure}: {result.reason}", blame=True)


def give_back(tx: Tx, item: WorkItem, reason: str, *, blame: bool) -> None:
    """Put a leased item back into the queue; if the item was lost too often, mark it as refused."""
    work_items.give_back(tx, item, reason, blame=blame)
    if item.state == "poisoned":
        _end(tx, item, "poisoned", failure=reason)


def _end(tx: Tx, item: WorkItem, state: str, sets: list[Any] | None = None, failure: str = "") -> None:
    row = _row(tx, devices.get(tx, item.device_id), item.key.removeprefix(key_of("")))
    row.sets, row.failure, row.sha256 = sets, failure[:2000], None
    item.state, item.reason = state, failure[:2000]


def release(tx: Tx) -> None:
    """Release the files of questions that will not be answered. A caller that still needs an answer asks again."""
    waiting = questions.is_open(Fusion.device_id, Fusion.config_id, literal(key_of("")) + Fusion.wiring)
    tx.session.execute(delete(Fusion).where(Fusion.sha256.is_not(None), ~waiting))
