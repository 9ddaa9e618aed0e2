"""Device figures: coverage and accuracy of devices' tables, found with three queries for any number of devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Select, and_, func, select

from hw_profiles.tables.calibration import Calibration
from service.store.base import Tx
from service.store.devices.devices import Device
from service.store.devices.latency import CalibrationRow, LatencyRow
from service.store.devices.work_items import OPEN, REFUSED, WorkItem


@dataclass(frozen=True)
class Figures:
    """Figures of one device.

    Attributes:
        measured: number of blocks in the table of the device's current configuration.
        outstanding: number of blocks that are queued or being measured.
        refused: number of blocks that the device cannot run or that were lost too often.
        error_mape: error of the device's predictions, from the newest calibration; None until three networks were
            measured.
    """

    measured: int = 0
    outstanding: int = 0
    refused: int = 0
    error_mape: float | None = None

    @property
    def coverage(self) -> float:
        """Share of the requested blocks of this configuration that are measured; 0 if no block was requested."""
        asked = self.measured + self.outstanding + self.refused
        return self.measured / asked if asked else 0.0


def figures(tx: Tx, device_id: str | None = None) -> Mapping[str, Figures]:
    """Return the figures of all devices, or of one device, by device id."""
    wanted = select(Device.id) if device_id is None else select(Device.id).where(Device.id == device_id)
    measured, missing, errors = _measured(tx, wanted), _missing(tx, wanted), _errors(tx, wanted)
    return {
        name: Figures(
            measured.get(name, 0),
            sum(missing.get((name, state), 0) for state in OPEN),
            sum(missing.get((name, state), 0) for state in REFUSED),
            errors.get(name),
        )
        for name in tx.session.execute(wanted).scalars()
    }


def _measured(tx: Tx, wanted: Select[str]) -> Mapping[str, int]:
    now = and_(Device.id == LatencyRow.device_id, Device.config_id == LatencyRow.config_id)
    rows = select(LatencyRow.device_id, func.count(LatencyRow.key.distinct())).join(Device, now)
    rows = rows.where(LatencyRow.device_id.in_(wanted), LatencyRow.status == "ok").group_by(LatencyRow.device_id)
    return {device_id: count for device_id, count in tx.session.execute(rows)}  # noqa: C416 - mypy: rows are not pairs


def _missing(tx: Tx, wanted: Select[str]) -> Mapping[tuple[str, str], int]:
    """Count the missing blocks by device and state."""
    rows = select(WorkItem.device_id, WorkItem.state, func.count()).where(WorkItem.device_id.in_(wanted))
    rows = rows.where(WorkItem.kind == "block", WorkItem.state.in_((*OPEN, *REFUSED)))
    rows = rows.group_by(WorkItem.device_id, WorkItem.state)
    return {(device_id, state): count for device_id, state, count in tx.session.execute(rows)}


def _errors(tx: Tx, wanted: Select[str]) -> Mapping[str, float | None]:
    now = and_(Device.id == CalibrationRow.device_id, Device.config_id == CalibrationRow.config_id)
    newest = (CalibrationRow.epoch.desc(), CalibrationRow.id.desc())
    place = func.row_number().over(partition_by=CalibrationRow.device_id, order_by=newest).label("place")
    ranked = select(CalibrationRow.device_id, CalibrationRow.calibration, place).join(Device, now)
    first = ranked.where(CalibrationRow.device_id.in_(wanted)).subquery()
    rows = select(first.c.device_id, first.c.calibration).where(first.c.place == 1)
    return {device_id: Calibration.from_json(stored).loo_mape for device_id, stored in tx.session.execute(rows)}
