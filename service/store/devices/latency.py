"""Latency: measured rows of blocks and calibrations, both append-only, and the table computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, select
from sqlalchemy.orm import Mapped, mapped_column

from hw_profiles.errors import InvalidInput
from hw_profiles.ops import Op
from hw_profiles.tables.calibration import Calibration
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.table import LatencyTable, Row
from service.store.base import Base, Tx
from service.store.devices import devices
from service.store.devices.devices import Device

_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite autoincrements only INTEGER keys


class LatencyRow(Base):
    """One measurement of one block. `status` is `ok`, or `rejected` if the session's anchors were off.

    `bursts` has the raw bursts of the two models whose difference gives the slope; `op` is None in imported rows.
    """

    __tablename__ = "latency_rows"
    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"))
    config_id: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(64))
    op: Mapped[dict[str, Any] | None]
    features: Mapped[dict[str, Any]]
    timing: Mapped[dict[str, Any]]
    bursts: Mapped[dict[str, Any] | None]
    latency_us: Mapped[float]
    sigma_us: Mapped[float]
    scale: Mapped[float]
    epoch: Mapped[int]
    status: Mapped[str] = mapped_column(String(16))
    lease_id: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime]
    __table_args__ = (Index("ix_latency_rows_table", "device_id", "config_id", "epoch"),)


class CalibrationRow(Base):
    """A fit of whole networks' latencies to the sums of the latencies of their blocks."""

    __tablename__ = "calibrations"
    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"), index=True)
    config_id: Mapped[str] = mapped_column(String(64))
    epoch: Mapped[int]
    calibration: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


def table(tx: Tx, device_id: str) -> LatencyTable:
    """Return the newest snapshot of a table. Each change of the table has its own epoch, which identifies the snapshot.

    Raises:
        NotFound: there is no such device.
    """
    device = devices.get(tx, device_id)
    wanted = (
        select(LatencyRow)
        .where(LatencyRow.device_id == device.id, LatencyRow.config_id == device.config_id)
        .where(LatencyRow.status == "ok", LatencyRow.epoch <= device.epoch)
        .order_by(LatencyRow.epoch, LatencyRow.id)
    )
    return LatencyTable(
        device=device.config,
        epoch=device.epoch,
        rows={row.key: _row(row) for row in tx.session.execute(wanted).scalars()},
        calibration=calibration(tx, device),
        classes=KernelClasses() if device.classes is None else KernelClasses.from_json(device.classes),
    )


def _row(stored: LatencyRow) -> Row:
    names = ("key", "features", "timing", "latency_us", "sigma_us", "epoch")
    return Row.from_json({name: getattr(stored, name) for name in names})


def measured(tx: Tx, device: Device) -> set[str]:
    """Return the keys of the blocks in the table."""
    wanted = select(LatencyRow.key).where(
        LatencyRow.device_id == device.id, LatencyRow.config_id == device.config_id, LatencyRow.status == "ok"
    )
    return set(tx.session.execute(wanted.distinct()).scalars())


def add_row(
    tx: Tx,
    device: Device,
    row: Row,
    *,
    op: Op | None = None,
    bursts: Mapping[str, Any] | None = None,
    scale: float = 1.0,
    accepted: bool = True,
    lease_id: str | None = None,
) -> None:
    """Append a measurement with the table's next epoch. It becomes part of the table if it was accepted."""
    values = row.to_json() | {"epoch": devices.next_epoch(tx, device)}
    tx.session.add(
        LatencyRow(
            **values,
            device_id=device.id,
            config_id=device.config_id,
            op=None if op is None else op.to_json(),
            bursts=None if bursts is None else dict(bursts),
            scale=scale,
            status="ok" if accepted else "rejected",
            lease_id=lease_id,
            created_at=tx.now,
        )
    )
    tx.session.flush()


def calibration(tx: Tx, device: Device) -> Calibration:
    """Return the newest calibration, or the prior if there is no calibration."""
    wanted = (
        select(CalibrationRow.calibration)
        .where(CalibrationRow.device_id == device.id, CalibrationRow.config_id == device.config_id)
        .order_by(CalibrationRow.epoch.desc(), CalibrationRow.id.desc())
    )
    stored = tx.session.execute(wanted.limit(1)).scalar_one_or_none()
    return Calibration() if stored is None else Calibration.from_json(stored)


def record_calibration(tx: Tx, device_id: str, fitted: Calibration) -> int:
    """Store a new calibration and return the table's new epoch."""
    device = devices.get(tx, device_id)
    epoch = devices.next_epoch(tx, device)
    tx.session.add(
        CalibrationRow(
            device_id=device.id,
            config_id=device.config_id,
            epoch=epoch,
            calibration=fitted.to_json(),
            created_at=tx.now,
        )
    )
    tx.session.flush()
    return epoch


def record_classes(tx: Tx, device_id: str, classes: KernelClasses) -> int:
    """Store the alignment rules learned for a device and return the table's new epoch."""
    device = devices.get(tx, device_id)
    device.classes = classes.to_json()
    return devices.next_epoch(tx, device)


def import_table(tx: Tx, device: Device, imported: LatencyTable) -> int:
    """Import a table measured on the same configuration; return the number of added rows.

    Rows, calibration and classes are added, but only where they are missing: rows that the device measured are kept.

    Raises:
        InvalidInput: the table was measured on another configuration.
    """
    for name in ("runtime", "runtime_version", "threads", "dtype", "kind", "emulated", "options"):
        seen, wanted = getattr(imported.device, name), getattr(device.config, name)
        if seen != wanted:
            raise InvalidInput(f"device.{name}", seen, f"must be {wanted!r} as on device {device.name}")
    known = measured(tx, device)
    added = [row for row in imported.rows.values() if row.key not in known]
    for row in added:
        add_row(tx, device, row)
    if calibration(tx, device).networks == 0 and imported.calibration.networks > 0:
        record_calibration(tx, device.id, imported.calibration)
    if device.classes is None and not imported.classes.trivial:
        record_classes(tx, device.id, imported.classes)
    return len(added)
