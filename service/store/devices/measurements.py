"""Measurements: whole networks timed together, interleaved in one lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, select, update
from sqlalchemy.orm import Mapped, mapped_column, relationship

from hw_profiles.ops import Op
from hw_profiles.tables.calibration import calibrate
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from hw_profiles.wire.bounds import MAX_ITEMS
from hw_profiles.wire.lease import Protocol
from hw_profiles.wire.result import Bursts, Result
from service.errors import Conflict, InvalidInput, NotFound
from service.store.base import Base, Tx, new_id
from service.store.devices import devices, latency
from service.store.devices.devices import Device
from service.store.devices.work_items import OPEN, WorkItem, give_back

CALIBRATION_NETWORKS = 30
"""Number of the newest networks to which a calibration is fitted (design 6: 20-30)."""
FIRST_OF_ALL = 1e12
"""Priority of networks. A run or a user waits for networks, and there are few of them."""


class MeasuredNetwork(Base):
    """One network of a measurement. `ops` has the network's blocks if the caller knew them; only then is the network
    added to the calibration.

    `sha256` names the network's file; it is None once the measurement has ended and released the file. `failure` has
    the kind and the reason if the device did not time the network.
    """

    __tablename__ = "measured_networks"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    measurement_id: Mapped[str] = mapped_column(ForeignKey("measurements.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    ops: Mapped[list[Any] | None]
    bursts: Mapped[dict[str, Any] | None]
    failure: Mapped[dict[str, Any] | None]


class Measurement(Base):
    """A request to time networks on a device. `state` is queued, running, done or failed. A measurement is done if its
    networks were timed together, except those that the device refused.
    """

    __tablename__ = "measurements"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"), index=True)
    config_id: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), default="queued")
    protocol: Mapped[dict[str, Any]]
    failure: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    networks: Mapped[list[MeasuredNetwork]] = relationship(order_by=MeasuredNetwork.id, passive_deletes=True)

    def samples(self) -> dict[str, Sample]:
        """Return the bursts of each network, by the name that the caller gave it; empty until the measurement is
        done.
        """
        if self.state != "done":
            return {}
        return {item.name: Bursts.from_json(item.bursts).sample(item.name) for item in self.networks if item.bursts}

    def failures(self) -> dict[str, Failure]:
        """Return the failures of the networks that the device did not time, by name."""
        failed = ((item.name, item.failure) for item in self.networks if item.failure)
        return {name: Failure(name, str(found["reason"]), str(found["kind"])) for name, found in failed}


def measure(
    tx: Tx,
    device_id: str,
    networks: Mapping[str, str],
    protocol: BurstProtocol,
    ops: Mapping[str, Sequence[Op]] | None = None,
    suffixes: Mapping[str, str] | None = None,
) -> str:
    """Request to time `networks` (name -> sha256 of a recorded blob) together; return the measurement's id.

    `ops` has the blocks of the networks that should be added to the device's calibration. `suffixes` has the file name
    suffixes of networks that are in the engine's own format.

    Raises:
        NotFound: there is no such device.
        InvalidInput: there is no network, or there are more networks than fit into one lease.
    """
    if not 1 <= len(networks) <= MAX_ITEMS:
        raise InvalidInput("networks", len(networks), f"must be 1 to {MAX_ITEMS} networks, to be timed in one lease")
    device = devices.get(tx, device_id)
    wanted = Measurement(
        id=new_id("msr"),
        device_id=device.id,
        config_id=device.config_id,
        protocol=Protocol.of(protocol).to_json(),
        created_at=tx.now,
    )
    tx.session.add(wanted)
    for name, sha256 in networks.items():
        blocks = None if ops is None or name not in ops else [op.to_json() for op in ops[name]]
        network = MeasuredNetwork(id=new_id("net"), name=name, sha256=sha256, ops=blocks)
        wanted.networks.append(network)
        tx.session.add(_item(device, wanted, network, tx.now, (suffixes or {}).get(name)))
    tx.session.flush()
    return wanted.id


def _item(device: Device, wanted: Measurement, network: MeasuredNetwork, now: datetime, suffix: str | None) -> WorkItem:
    return WorkItem(
        device_id=device.id,
        kind="network",
        key=network.id,
        measurement_id=wanted.id,
        sha256=network.sha256,
        suffix=suffix,
        priority=FIRST_OF_ALL,
        available_at=now,
        created_at=now,
    )


def measurement(tx: Tx, measurement_id: str) -> Measurement:
    """Return the measurement with this id.

    Raises:
        NotFound: there is no such measurement.
    """
    found = tx.session.get(Measurement, measurement_id)
    if found is None:
        raise NotFound("measurement", measurement_id)
    return found


def cancel(tx: Tx, measurement_id: str) -> None:
    """Cancel a measurement that is no longer needed; an agent that runs it learns of this at its next heartbeat.

    Raises:
        NotFound: there is no such measurement.
    """
    wanted = measurement(tx, measurement_id)
    if wanted.state in ("queued", "running"):
        _end(tx, wanted, {"kind": "cancelled", "network": None, "reason": "the measurement was no longer needed"})


def release(tx: Tx, before: datetime) -> None:
    """Release the files of measurements that ended before `before`; their results stay."""
    ended = select(Measurement.id).where(Measurement.state.in_(("done", "failed")), Measurement.finished_at < before)
    held = update(MeasuredNetwork).where(MeasuredNetwork.measurement_id.in_(ended), MeasuredNetwork.sha256.is_not(None))
    tx.session.execute(held.values(sha256=None))


def items(tx: Tx, measurement_id: str) -> Sequence[WorkItem]:
    """Return the work items of a measurement."""
    rows = select(WorkItem).where(WorkItem.measurement_id == measurement_id).order_by(WorkItem.id)
    return tx.session.execute(rows).scalars().all()


def record(tx: Tx, item: WorkItem, result: Result) -> None:
    """Store the result of one network; the last result ends the measurement."""
    network = tx.session.get_one(MeasuredNetwork, item.key)
    if result.bursts is None:
        network.failure = {"kind": result.failure, "reason": result.reason}
        item.state, item.reason = "failed", result.reason
    else:
        network.bursts = result.bursts.to_json()
        item.state = "done"
    wanted = measurement(tx, network.measurement_id)
    if not any(each.state in OPEN for each in items(tx, wanted.id)):
        _finish(tx, wanted)


def _finish(tx: Tx, wanted: Measurement) -> None:
    """End a measurement of which every network has a result.

    Networks that the runtime refuses are known before anything is timed, so the others were timed together. A network
    that crashes or hangs divides the others into sessions of their own, so none of them counts.
    """
    failures = list(wanted.failures().values())
    together = all(each.kind == "error" for each in failures) and len(failures) < len(wanted.networks)
    if not together:
        first = failures[0]
        _end(tx, wanted, {"kind": first.kind, "network": first.key, "reason": first.reason})
        return
    wanted.state, wanted.finished_at = "done", tx.now
    device = devices.get(tx, wanted.device_id)
    if wanted.config_id == device.config_id and any(network.ops is not None for network in wanted.networks):
        recalibrate(tx, device)


def lose(tx: Tx, measurement_id: str, reason: str, *, blame: bool) -> None:
    """Queue a measurement again after its lease was lost, because its networks count only if all are timed together."""
    wanted = measurement(tx, measurement_id)
    if wanted.state not in ("queued", "running"):
        return
    wanted.state = "queued"
    for network in wanted.networks:
        network.bursts = network.failure = None
    lost = items(tx, measurement_id)
    for item in lost:
        give_back(tx, item, reason, blame=blame)
    if any(item.state == "poisoned" for item in lost):
        _end(tx, wanted, {"kind": "lost", "network": None, "reason": reason})


def _end(tx: Tx, wanted: Measurement, failure: dict[str, Any]) -> None:
    wanted.state, wanted.failure, wanted.finished_at = "failed", failure, tx.now
    for item in items(tx, wanted.id):
        if item.state in ("queued", "leased"):
            item.state, item.reason = "failed", str(failure["reason"])[:2000]


def recalibrate(tx: Tx, device: Device) -> None:
    """Fit the device's calibration to its newest networks with known blocks, if there are at least as many as in the
    last fit.
    """
    newest = (
        select(MeasuredNetwork)
        .join(Measurement, MeasuredNetwork.measurement_id == Measurement.id)
        .where(Measurement.device_id == device.id, Measurement.config_id == device.config_id)
        .where(Measurement.state == "done", MeasuredNetwork.ops.is_not(None), MeasuredNetwork.bursts.is_not(None))
        .order_by(Measurement.finished_at.desc(), MeasuredNetwork.id)
        .limit(CALIBRATION_NETWORKS)
    )
    known = {network: [Op.from_json(op) for op in network.ops or ()] for network in tx.session.scalars(newest)}
    if not known:
        return
    table = latency.table(tx, device.id)
    covered = {
        network: ops
        for network, ops in known.items()
        if all(entry.source in ("measured", "class") for entry in table.entries(ops))
    }
    if not covered or len(covered) < table.calibration.networks:
        return
    sums_us, sigmas_us = table.sums_us(list(covered.values()))
    quiet_us = [Bursts.from_json(network.bursts).sample(network.name).timing().quiet_us for network in covered]
    latency.record_calibration(tx, device.id, calibrate(sums_us.tolist(), sigmas_us.tolist(), quiet_us))


def start(tx: Tx, measurement_id: str, device: Device) -> Measurement:
    """Note that an agent has started the measurement on the device's current configuration.

    Raises:
        Conflict: the measurement is not queued.
    """
    wanted = measurement(tx, measurement_id)
    if wanted.state != "queued":
        raise Conflict(f"measurement {wanted.id} is {wanted.state}", code="state")
    wanted.state, wanted.config_id = "running", device.config_id
    return wanted
