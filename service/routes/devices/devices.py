"""Devices: their state and latency tables, with predictions and measurements."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel
from sqlalchemy.orm import InstrumentedAttribute
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.protocol import BurstProtocol
from service.depends import BlobsDep, OnceDep, Page, PageDep, StoreDep, UserDep, paged
from service.devices import asked_forms, predictions, quarantine, table_files
from service.devices.predictions import PredictionPublic
from service.errors import REFUSALS, Conflict, InvalidInput, NotFound
from service.http.bodies import Body
from service.http.idempotency import Answer
from service.http.json_route import JsonRoute
from service.http.problem_details import documented
from service.routes.devices.measurements import MeasurementPublic, measurement_public
from service.store.base import Tx
from service.store.devices import devices, latency, measurements, work_items
from service.store.devices.device_figures import Figures, figures
from service.store.devices.devices import Device, State
from service.store.jobs import jobs
from service.store.jobs.jobs import Job
from service.store.uploads import models
from service.store.uploads.models import Model
from service.uploads import intake

router = APIRouter(prefix="/api/v1/devices", tags=["devices"], route_class=JsonRoute)

Ref = Annotated[str, Path(max_length=80)]
MEASURED_ROUNDS = 20
"""Number of rounds for timing a whole network; a verdict needs more rounds. This is a choice: with this many rounds,
the means of the two halves of one session differ by less than 1 % in the rows of benchmarks/predictor_accuracy.py
(docs/benchmarks.md).
"""
UNFINISHED = ("queued", "running", "paused")
SORTABLE: dict[str, InstrumentedAttribute[object]] = {
    "name": Device.name,
    "created_at": Device.created_at,
    "last_seen_at": Device.last_seen_at,
}


class DevicePublic(BaseModel):
    """A device. `coverage` is the share of the requested blocks that are measured. `error_mape` is the error of the
    device's predictions on networks that were measured whole, with each network left out in turn; it is null until
    three such networks were measured. `state_reason` says why a device is quarantined and what ends it; `refused` is
    the number of blocks that it cannot time.
    """

    id: str
    name: str
    machine: str
    kind: Literal["cpu", "gpu", "mobile", "simulated"]
    runtime: str
    runtime_version: str
    threads: int
    dtype: str
    emulated: bool
    state: State
    state_reason: str | None = None
    coverage: float
    error_mape: float | None
    epoch: int
    outstanding: int
    refused: int
    last_seen_at: datetime


class PredictBody(Body):
    """A request for a prediction. If `fill` is true, the device is asked to measure the missing blocks."""

    model: str
    fill: bool = False


class MeasureBody(Body):
    """A request to time a whole model."""

    model: str


class Imported(BaseModel):
    """The result of importing a table."""

    rows: int
    epoch: int


def device_public(tx: Tx, device: Device, known: Mapping[str, Figures]) -> DevicePublic:
    """Return the public form of a device; `known` has the figures of at least this device."""
    found = known.get(device.id, Figures())
    return DevicePublic.model_validate(
        {
            **{name: getattr(device, name) for name in DevicePublic.model_fields if hasattr(device, name)},
            "state": devices.state(tx, device),
            "state_reason": quarantine.reason(tx, device),
            "coverage": found.coverage,
            "error_mape": found.error_mape,
            "outstanding": found.outstanding,
            "refused": found.refused,
        }
    )


@router.get("", responses=documented(401, 403, 422))
def list_devices(store: StoreDep, _user: UserDep, page: PageDep) -> Page[DevicePublic]:
    """List all devices."""
    with store.read() as tx:
        known = figures(tx)
        return paged(tx, devices.rows(), page, SORTABLE, Device.id, lambda row: device_public(tx, row, known), "name")


@router.get("/{ref}", responses=documented(401, 403, 404))
def read_device(ref: Ref, store: StoreDep, _user: UserDep) -> DevicePublic:
    """Return one device by id or name."""
    with store.read() as tx:
        device = devices.get(tx, ref)
        return device_public(tx, device, figures(tx, device.id))


@router.delete("/{ref}", status_code=204, responses=documented(401, 403, 404, 409))
def remove_device(ref: Ref, store: StoreDep, _user: UserDep) -> None:
    """Delete a device and everything measured on it. Its agent is informed and continues with its other devices, or
    ends if none is left. The device comes back with an empty table when the agent restarts, or at once if the agent
    runs with `--offer-again`.
    """
    with store.begin() as tx:
        device = devices.get(tx, ref)
        waiting = jobs.selected(device_id=device.id).where(Job.state.in_(UNFINISHED)).limit(1)
        if (job := tx.session.execute(waiting).scalar_one_or_none()) is not None:
            raise Conflict(f"job {job.name!r} has a target on device {device.name!r}", code="referenced")
        devices.remove(tx, device)


@router.get(
    "/{ref}/table",
    response_class=Response,
    responses={200: {"content": {table_files.JSON: {}, table_files.PARQUET: {}}}, **documented(401, 403, 404, 422)},
)
def read_table(
    ref: Ref,
    store: StoreDep,
    _user: UserDep,
    format: Annotated[Literal["json", "parquet"] | None, Query()] = None,
    accept: Annotated[str, Header(max_length=1000)] = "",
) -> Response:
    """Return the newest latency table, as JSON or, with `format=parquet` or a matching Accept header, as Parquet."""
    with store.read() as tx:
        device = devices.get(tx, ref)
        table = latency.table(tx, device.id)
    if format == "parquet" or (format is None and table_files.PARQUET in accept):
        name = f'attachment; filename="{device.name}.parquet"'
        content = table_files.to_parquet(table)
        return Response(content, media_type=table_files.PARQUET, headers={"Content-Disposition": name})
    return JSONResponse(table.to_json())


@router.post(
    "/{ref}/table",
    status_code=201,
    openapi_extra={
        "requestBody": {"required": True, "content": {table_files.JSON: {}, table_files.PARQUET: {}}},
    },
    response_model=Imported,
    responses=documented(401, 403, 404, 409, 413, 422),
)
async def import_table(
    ref: Ref, request: Request, once: OnceDep, _user: UserDep, content_type: Annotated[str, Header()] = ""
) -> Response:
    """Fill gaps of a device's table from a file that `GET` returned for the same configuration."""
    content = await request.body()

    def read_and_store() -> Response:
        of = {"device": ref, "table": hashlib.sha256(content).hexdigest()}
        if (kept := once.replayed(of)) is not None:
            return kept
        table = _read_table(content, content_type)

        def make(tx: Tx) -> Answer:
            device = devices.get(tx, ref)
            added = latency.import_table(tx, device, table)
            return Answer(Imported(rows=added, epoch=device.epoch))

        return once(make, of=of)

    return await run_in_threadpool(read_and_store)


def _read_table(content: bytes, content_type: str) -> LatencyTable:
    if content_type.startswith(table_files.PARQUET):
        return table_files.from_parquet(content)
    try:
        return table_files.from_json(json.loads(content))
    except REFUSALS:
        raise
    except ValueError as error:
        raise InvalidInput(
            "table", len(content), f"is neither JSON nor sent as {table_files.PARQUET}: {error}"
        ) from error


@router.post("/{ref}/predict", responses=documented(401, 403, 404, 409, 422))
def predict(ref: Ref, body: PredictBody, store: StoreDep, blobs: BlobsDep, _user: UserDep) -> PredictionPublic:
    """Predict the latency of a model, as uploaded, from the device's table."""
    with store.read() as tx:
        device = devices.get(tx, ref)
        model = _model(tx, body.model)
        table = latency.table(tx, device.id)
        refused = {item.key: item.reason for item in work_items.refused(tx, device.id)}
    told = asked_forms.told(store, blobs, model.sha256, device.id)
    try:
        blocks = predictions.blocks_of(blobs, model.sha256, table.device, told.values())
    except predictions.Untold:
        if body.fill:
            asked_forms.ask(store, blobs, model.sha256, device.id)
        return predictions.unknown(table.device, body.fill)
    found, shown = predictions.predict(table, blocks)
    if not told:
        shown.warnings.append(intake.not_asked_yet(table.device))
    bad = [op.key for op in found.missing if op.key in refused]
    if bad:
        shown.warnings.append(f"{len(bad)} blocks cannot be timed on this device: {refused[bad[0]]}")
    if body.fill and not told:
        asked_forms.ask(store, blobs, model.sha256, device.id)
    if body.fill and found.missing:
        ranked = list(range(len(found.missing), 0, -1))  # the most uncertain block is first
        with store.begin() as tx:
            work_items.fill(tx, device.id, found.missing, [float(rank) for rank in ranked])
    return shown


@router.post(
    "/{ref}/measurements",
    status_code=202,
    response_model=MeasurementPublic,
    responses=documented(401, 403, 404, 409, 422),
)
def measure(ref: Ref, body: MeasureBody, store: StoreDep, blobs: BlobsDep, _user: UserDep, once: OnceDep) -> Response:
    """Time a whole model on the device; the result is added to the device's calibration."""
    with store.read() as tx:
        device = devices.get(tx, ref)
        model = _model(tx, body.model)
        config = device.config
    told = asked_forms.told(store, blobs, model.sha256, device.id)
    try:
        ops = {model.name: [op for _, op in predictions.blocks_of(blobs, model.sha256, config, told.values())]}
    except predictions.Untold:
        ops = {}  # the network is still timed, but not added to the calibration
    protocol = BurstProtocol(min_rounds=MEASURED_ROUNDS)

    def make(tx: Tx) -> Answer:
        new_id = measurements.measure(tx, device.id, {model.name: model.sha256}, protocol, ops)
        shown = measurement_public(measurements.measurement(tx, new_id))
        return Answer(shown, 202, {"Location": f"/api/v1/measurements/{new_id}"})

    return once(make, of=body)


def _model(tx: Tx, ref: str) -> Model:
    model = models.find(tx, ref)
    if model is None:
        raise NotFound("model", ref)
    if model.state != "ready":
        raise Conflict(f"model {model.name!r} is {model.state}", code="state")
    return model
