"""Measurements: timings of whole networks on a device."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel

from hw_profiles.timing.protocol import bootstrap_upper
from service.depends import StoreDep, UserDep
from service.http.problem_details import documented
from service.store.devices import measurements
from service.store.devices.measurements import Measurement

router = APIRouter(prefix="/api/v1/measurements", tags=["devices"])


class MeasurementFailure(BaseModel):
    """Reason for a failed measurement. `kind` is error, crash, timeout, lost or cancelled."""

    kind: str
    network: str | None
    reason: str


class MeasurementPublic(BaseModel):
    """A measurement: the quiet latency with its 95 % bootstrap interval over bursts, the median and 95th percentile."""

    id: str
    device_id: str
    state: Literal["queued", "running", "done", "failed"]
    latency_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    rounds: int | None = None
    failure: MeasurementFailure | None = None
    created_at: datetime
    finished_at: datetime | None


def measurement_public(measured: Measurement) -> MeasurementPublic:
    """Return the public form of a measurement. It has figures only if one network was measured."""
    shown = MeasurementPublic.model_validate(
        {name: getattr(measured, name) for name in MeasurementPublic.model_fields if hasattr(measured, name)}
    )
    samples = list(measured.samples().values())
    if len(samples) == 1:
        (sample,) = samples
        timing = sample.timing()
        shown.latency_ms = timing.quiet_us / 1000.0
        shown.low_ms = bootstrap_upper(sample, None, percentile=2.5) / 1000.0
        shown.high_ms = bootstrap_upper(sample, None, percentile=97.5) / 1000.0
        shown.p50_ms, shown.p95_ms = timing.p50_us / 1000.0, timing.p95_us / 1000.0
        shown.rounds = sample.bursts
    return shown


@router.get("/{measurement_id}", responses=documented(401, 403, 404))
def read_measurement(
    measurement_id: Annotated[str, Path(max_length=80)], store: StoreDep, _user: UserDep
) -> MeasurementPublic:
    """Return one measurement."""
    with store.read() as tx:
        return measurement_public(measurements.measurement(tx, measurement_id))
