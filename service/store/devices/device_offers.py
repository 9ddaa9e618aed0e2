"""Offers: turn the configurations that an agent offers into devices."""

from __future__ import annotations

from sqlalchemy import select

from hw_profiles.device import DeviceConfig
from hw_profiles.wire.enrolment import Enrolment, RuntimeOffer
from service.errors import Conflict, InvalidInput
from service.store.base import Tx, new_id
from service.store.devices import devices, work_items
from service.store.devices.agents import Agent
from service.store.devices.devices import Device


def accept(tx: Tx, agent: Agent, enrolment: Enrolment) -> list[Device]:
    """Return the devices that an agent offers, in the agent's order; new devices are created. Devices that it no longer
    offers keep their tables and go offline.

    Raises:
        InvalidInput: a configuration has no valid name, or is offered twice.
        Conflict: a name belongs to another machine's device.
    """
    offered = [_accept_one(tx, agent, item) for item in enrolment.runtimes]
    ids = [device.id for device in offered]
    if len(set(ids)) < len(ids):
        raise InvalidInput("runtimes", [device.name for device in offered], "offers the same device twice")
    for device in devices.of_machine(tx, agent.machine):
        if device.id not in ids:
            device.agent_id = None
    devices.refresh_states(tx, agent.machine)
    return offered


def _accept_one(tx: Tx, agent: Agent, item: RuntimeOffer) -> Device:
    config = item.device(agent.machine)
    device = tx.session.execute(select(Device).where(Device.name == config.name)).scalar_one_or_none()
    if device is None:
        device = Device(id=new_id("dev"), name=config.name, machine=config.machine, created_at=tx.now, epoch=0)
    elif device.machine != agent.machine:
        raise Conflict(f"the name {config.name!r} belongs to a device of machine {device.machine!r}", code="name")
    device.agent_id, device.last_seen_at = agent.id, tx.now
    device.quarantined = not agent.self_test["ok"]
    device.refused, device.retry_at, device.busy_until = 0, None, None
    if device.config_id != config.config_id:
        _move_on(tx, device, config)
    tx.session.flush()
    return device


def _move_on(tx: Tx, device: Device, config: DeviceConfig) -> None:
    """Switch the device to a new configuration; earlier measurements stay with the old configuration."""
    device.kind, device.runtime, device.runtime_version = config.kind, config.runtime, config.runtime_version
    device.threads, device.dtype, device.emulated = config.threads, config.dtype, config.emulated
    device.options, device.suffix = [list(pair) for pair in config.options], config.suffix
    device.config_id = config.config_id
    device.epoch, device.classes, device.anchors, device.scale = device.epoch + 1, None, [], 1.0
    tx.session.add(device)
    tx.session.flush()
    work_items.ask_again(tx, device.id)
