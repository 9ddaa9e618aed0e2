"""What the service's tests talk about: a clock moved by hand, an uploaded model, a queued job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.jobs.body import JobCreate
from service.jobs.submission import resolve
from service.store import Store, Tx
from service.store.devices.devices import Device
from service.store.jobs import jobs
from service.store.uploads.models import Model
from service.testing import HandClock

__all__ = ["HandClock", "Uploaded", "add_device", "add_model", "queue"]


@dataclass(frozen=True)
class Uploaded:
    """Ids of what a job names."""

    model_id: str
    dataset_id: str
    device_id: str


def add_model(tx: Tx, name: str, sha256: str, model_id: str = "mdl_1", prunable: bool = True) -> None:
    """Store the row of a small network."""
    group = {"name": "g", "width": 8, "prunable": prunable, "reason": None if prunable else "an output", "layers": []}
    tx.session.add(
        Model(
            id=model_id,
            name=name,
            sha256=sha256,
            preprocessing={},
            parameters=1000,
            macs=10_000,
            size_bytes=4000,
            input_shape=[1, 32, 32],
            outputs=[{"name": "logits", "shape": [10]}],
            groups=[group],
            warnings=[],
            created_at=tx.now,
        )
    )


def queue(store: Store, uploaded: Uploaded, **changes: Any) -> str:
    """Queue a job; its id."""
    body = {"model": uploaded.model_id, "dataset": uploaded.dataset_id, "targets": [], **changes}
    with store.begin() as tx:
        return jobs.create(tx, resolve(tx, JobCreate.model_validate(body)).request).id


def add_device(tx: Tx, device_id: str, machine: str) -> None:
    """Store the row of another simulated device."""
    tx.session.add(
        Device(
            id=device_id,
            name=f"{machine}-simulated-t1-fp32",
            machine=machine,
            kind="simulated",
            runtime="simulated",
            runtime_version="1",
            threads=1,
            dtype="fp32",
            emulated=False,
            options=[],
            config_id=f"{machine:c<64}",
            created_at=tx.now,
            last_seen_at=tx.now,
        )
    )
