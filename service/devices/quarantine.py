"""Quarantine: a device whose timings cannot be trusted gets no work until a session of anchors is accepted.

A device whose agent failed its self-test stays in quarantine until the agent restarts. A device whose sessions were
refused is offered a trial after a pause: a lease of its anchors alone. An accepted trial ends the quarantine.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from service.store.base import Tx
from service.store.devices import devices
from service.store.devices.agents import Agent
from service.store.devices.devices import Device

log = logging.getLogger(__name__)

MAX_REFUSED = 3
"""Number of refused sessions in a row after which a device is quarantined."""
PAUSES_MIN = (1, 2, 5, 10)
"""Minutes before the first, second, third and every later trial. This is a choice: a trial takes about 4 seconds, and
on a rented machine whose neighbours slowed single kernels by a third for seconds at a time, the next trial often
passed. A job waits an hour for a device, which leaves it eight trials.
"""


def begin(tx: Tx, device: Device) -> None:
    """Quarantine a device whose sessions were refused, or prolong its quarantine after a refused trial."""
    entered = not device.quarantined
    trial = max(device.refused - MAX_REFUSED, 0)
    device.quarantined = True
    device.retry_at = tx.now + timedelta(minutes=PAUSES_MIN[min(trial, len(PAUSES_MIN) - 1)])
    if entered:
        log.warning("device %s is quarantined: %s", device.name, reason(tx, device))


def end(device: Device) -> None:
    """End the quarantine of a device after an accepted session."""
    log.info("device %s has left quarantine: its timings agree with the reference again", device.name)
    device.quarantined, device.retry_at = False, None


def due(tx: Tx, agent: Agent, wanted: Sequence[str]) -> Device | None:
    """Return the device among the wanted ones of this agent whose trial is due, or None."""
    for device in devices.of_machine(tx, agent.machine):
        mine = device.agent_id == agent.id and device.id in wanted
        if mine and device.quarantined and device.anchors and device.retry_at and device.retry_at <= tx.now:
            return device
    return None


def reason(tx: Tx, device: Device) -> str | None:
    """Say why a device is quarantined and what ends it; None if it is not quarantined."""
    if not device.quarantined:
        return None
    if device.retry_at is None:
        agent = None if device.agent_id is None else tx.session.get(Agent, device.agent_id)
        detail = "" if agent is None else agent.self_test.get("detail") or ""
        return f"its agent failed its self-test{f' ({detail})' if detail else ''}; restart the agent to test it again"
    again = f"at {device.retry_at:%H:%M} UTC" if device.retry_at > tx.now else "as soon as its agent asks for work"
    return (
        f"{device.refused} timing sessions in a row disagreed with the reference: other programs use this machine. "
        f"Stop them; the device is tried again {again}, and a restart of its agent ends the quarantine at once"
    )
