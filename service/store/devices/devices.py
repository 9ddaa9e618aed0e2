"""Devices: configurations of machines. Each has a latency table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ForeignKey, Select, String, delete, select, update
from sqlalchemy.orm import Mapped, mapped_column

from hw_profiles.device import ONNX, DeviceConfig
from service.errors import Conflict, NotFound
from service.store.base import Base, Tx
from service.store.devices.agents import ALIVE, Agent

State = Literal["online", "busy", "offline", "quarantined"]


class Device(Base):
    """One configuration of one machine. The id is permanent; `config_id` and the table change with the runtime.

    `epoch` numbers the changes of the table. `anchors` are blocks of known latency that each lease times again;
    `scale` is the running mean of the anchors' slowdown; 1 means that the anchors are as fast as when they were chosen.
    `refused` is the number of leases in a row whose anchors were off. A quarantined device is tried again at
    `retry_at`; if that is null, once its agent restarts. `busy_until` is the time at which the device's lease ends;
    `shown_state` is the state in the latest event.
    """

    __tablename__ = "devices"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"), index=True)
    machine: Mapped[str] = mapped_column(String(32), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    runtime: Mapped[str] = mapped_column(String(64))
    runtime_version: Mapped[str] = mapped_column(String(64))
    threads: Mapped[int]
    dtype: Mapped[str] = mapped_column(String(64))
    emulated: Mapped[bool]
    options: Mapped[list[Any]]
    suffix: Mapped[str] = mapped_column(String(16), default=ONNX, server_default=ONNX)
    config_id: Mapped[str] = mapped_column(String(64))
    epoch: Mapped[int] = mapped_column(default=0)
    classes: Mapped[dict[str, Any] | None]
    anchors: Mapped[list[Any]] = mapped_column(default=list)
    scale: Mapped[float] = mapped_column(default=1.0)
    refused: Mapped[int] = mapped_column(default=0)
    quarantined: Mapped[bool] = mapped_column(default=False)
    retry_at: Mapped[datetime | None]
    shown_state: Mapped[str] = mapped_column(String(16), default="offline")
    busy_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]

    @property
    def config(self) -> DeviceConfig:
        """The configuration as a type of hw_profiles."""
        return DeviceConfig.from_json(
            {
                "machine": self.machine,
                "kind": self.kind,
                "runtime": self.runtime,
                "runtime_version": self.runtime_version,
                "threads": self.threads,
                "dtype": self.dtype,
                "emulated": self.emulated,
                "options": self.options,
                "suffix": self.suffix,
            }
        )


def find(tx: Tx, ref: str) -> Device | None:
    """Return the device with this id, or else with this name."""
    by_id = tx.session.get(Device, ref)
    return by_id or tx.session.execute(select(Device).where(Device.name == ref)).scalar_one_or_none()


def get(tx: Tx, ref: str) -> Device:
    """Return the device with this id, or else with this name.

    Raises:
        NotFound: there is no such device.
    """
    device = find(tx, ref)
    if device is None:
        raise NotFound("device", ref)
    return device


def rows() -> Select[Device]:
    """Select all devices, for a list."""
    return select(Device)


def of_machine(tx: Tx, machine: str, *, lock: bool = False) -> Sequence[Device]:
    """Return the devices of a machine; with `lock`, they are locked until the end of the transaction."""
    wanted = select(Device).where(Device.machine == machine).order_by(Device.id)
    return tx.session.execute(_locked(wanted) if lock else wanted).scalars().all()


def lock_all(tx: Tx) -> None:
    """Lock every device until the end of the transaction."""
    tx.session.execute(_locked(select(Device).order_by(Device.id))).scalars().all()


def _locked(wanted: Select[Device]) -> Select[Device]:
    """Add a lock to the query, and make it reload the rows that it locks.

    To avoid deadlocks, devices are always locked in the order of their ids and before their leases.
    """
    return wanted.with_for_update().execution_options(populate_existing=True)


def next_epoch(tx: Tx, device: Device) -> int:
    """Return the number of the next change of this device's table; concurrent writers get different numbers."""
    moved = update(Device).where(Device.id == device.id).values(epoch=Device.epoch + 1).returning(Device.epoch)
    epoch = tx.session.execute(moved.execution_options(synchronize_session=False)).scalar_one()
    tx.session.refresh(device, ["epoch"])
    return epoch


def seen(tx: Tx, agent_id: str) -> None:
    """Note that the agent of these devices has just sent a request."""
    tx.session.execute(update(Device).where(Device.agent_id == agent_id).values(last_seen_at=tx.now))


def state(tx: Tx, device: Device) -> State:
    """Return the current state of the device."""
    if device.quarantined:
        return "quarantined"
    if device.agent_id is None or tx.now - device.last_seen_at >= ALIVE:
        return "offline"
    busy = device.busy_until is not None and device.busy_until > tx.now
    return "busy" if busy else "online"


def refresh_states(tx: Tx, machine: str | None = None) -> None:
    """Emit an event for each device whose state differs from the state in its latest event."""
    wanted = select(Device) if machine is None else select(Device).where(Device.machine == machine)
    for device in tx.session.execute(wanted.order_by(Device.id)).scalars().all():
        now = state(tx, device)
        if now != device.shown_state:
            device.shown_state = now
            data = {"device_id": device.id, "name": device.name, "state": now}
            tx.emit(f"device:{device.id}", "device.state", data)
    tx.session.flush()


def remove(tx: Tx, device: Device) -> None:
    """Delete a device and everything measured on it; its agent learns of this from the answer to its next heartbeat.

    Raises:
        Conflict: the device is measuring.
    """
    if state(tx, device) == "busy":
        raise Conflict(f"device {device.name!r} is measuring; try again when it has finished", code="busy")
    agent = None if device.agent_id is None else tx.session.get(Agent, device.agent_id)
    if agent is not None:
        agent.removed = [*(agent.removed or []), device.id]
    tx.session.execute(delete(Device).where(Device.id == device.id))
