"""Models: trained networks as ONNX files, checked before use."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from compress.data.preprocessing import Preprocessing
from hw_profiles.device import NAME_PATTERN
from service.depends import BlobsDep, OnceDep, Page, PageDep, SettingsDep, StoreDep, UserDep, paged
from service.devices import asked_forms
from service.errors import Conflict
from service.files.blobs import Blobs
from service.http.downloads import file_answer
from service.http.idempotency import Once
from service.http.multipart import Upload, form_schema, receive
from service.http.problem_details import documented
from service.http.upload_fields import checked_name, json_object, short_text
from service.settings import Settings
from service.store.base import Tx, new_id
from service.store.devices import devices, latency
from service.store.engine import Store
from service.store.uploads import uploads
from service.store.uploads.models import Model
from service.uploads import checking, intake

router = APIRouter(prefix="/api/v1/models", tags=["models"])

Ref = Annotated[str, Path(max_length=80)]
SORTABLE: dict[str, InstrumentedAttribute[Any]] = {
    "name": Model.name,
    "created_at": Model.created_at,
    "size_bytes": Model.size_bytes,
    "macs": Model.macs,
}
MAX_OUTPUT = 400  # length of an output's name, in characters
FORM = form_schema(
    {
        "name": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
        "preprocessing": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "scale, mean, std, order, size, resize, crop: (pixels x scale - mean) / std",
        },
        "output": {
            "type": "string",
            "maxLength": MAX_OUTPUT,
            "description": "name of the output to score, if there are several outputs",
        },
    }
)


class Input(BaseModel):
    """An input of a network. `shape` is given without the batch axis; `layout` is the order of the axes."""

    name: str
    shape: list[int]
    dtype: str
    layout: Literal["NCHW", "NHWC"]


class Output(BaseModel):
    """An output of a network. `shape` is given without the batch axis. `role` says whether the output is scored against
    the labels or kept unchanged; null if this depends on the classes of a job's data.
    """

    name: str
    shape: list[int]
    role: Literal["scored", "kept"] | None = None


class GroupPublic(BaseModel):
    """Channels that can only be pruned together. If some of them must stay, `reason` says why."""

    name: str
    width: int
    prunable: bool
    reason: str | None
    layers: list[str]


class ModelPublic(BaseModel):
    """A network. Counts are zero while `state` is `checking`; `problem` says why it is `refused`."""

    id: str
    name: str
    sha256: str
    state: uploads.State
    parameters: int
    macs: int
    size_bytes: int
    input_shape: list[int]
    inputs: list[Input]
    outputs: list[Output]
    groups: list[GroupPublic]
    preprocessing: dict[str, Any]
    warnings: list[str]
    problem: checking.Refusal | None
    created_at: datetime


class LayerShare(BaseModel):
    """A fused block with its predicted latency and its share of the sum of all latencies; both are null until something
    was measured.
    """

    layers: list[str]
    prunable: bool
    latency_ms: float | None
    share: float | None
    source: str


class Preflight(BaseModel):
    """The possible gain of pruning on a device. `prunable_share` is the share of each count that the smallest widths of
    a job save. `latency_ms` is the prediction for the uploaded network, as `predict` returns it; ratios refer to this
    latency. `floor_ms` is the prediction at the smallest widths, in the form of the network that a job prunes; pruning
    alone cannot meet a lower limit.
    """

    model: str
    device: str
    device_name: str
    prunable_share: dict[str, float]
    frozen: list[GroupPublic]
    latency_ms: float | None
    low_ms: float | None
    high_ms: float | None
    floor_ms: float | None
    floor_low_ms: float | None
    coverage: float
    floor_coverage: float
    missing: int
    layers: list[LayerShare]
    warnings: list[str]


@router.post(
    "",
    status_code=201,
    response_model=ModelPublic,
    openapi_extra=FORM,
    responses={
        200: {"model": ModelPublic, "description": "The upload is known already"},
        202: {"model": ModelPublic, "description": "The upload is still being checked"},
        **documented(401, 403, 409, 413, 422),
    },
)
async def create_model(
    request: Request, store: StoreDep, blobs: BlobsDep, settings: SettingsDep, once: OnceDep, _user: UserDep
) -> Response:
    """Upload a network. It is checked in a separate process, and its outputs are verified with onnxruntime."""
    upload = await receive(request, blobs, settings.max_model_bytes, ("name", "preprocessing", "output"))
    return await run_in_threadpool(_create, upload, store, blobs, settings, once)


@router.get("", responses=documented(401, 403, 422))
def list_models(store: StoreDep, settings: SettingsDep, _user: UserDep, page: PageDep) -> Page[ModelPublic]:
    """List all networks."""
    with store.read() as tx:
        return paged(tx, select(Model), page, SORTABLE, Model.id, partial(_public, tx, settings=settings))


@router.get("/{ref}", responses=documented(401, 403, 404))
def read_model(ref: Ref, store: StoreDep, settings: SettingsDep, _user: UserDep) -> ModelPublic:
    """Return one network by id or name."""
    with store.read() as tx:
        return _public(tx, uploads.get(tx, Model, ref), settings)


@router.head("/{ref}/content", include_in_schema=False)
@router.get("/{ref}/content", response_class=Response, responses=documented(401, 403, 404, 416))
def read_content(
    ref: Ref,
    store: StoreDep,
    blobs: BlobsDep,
    _user: UserDep,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Response:
    """Download the file as it was uploaded."""
    with store.read() as tx:
        model = uploads.get(tx, Model, ref)
    return file_answer(blobs, model.sha256, f"{model.name}.onnx", if_none_match)


@router.delete("/{ref}", status_code=204, responses=documented(401, 403, 404, 409))
def remove_model(ref: Ref, store: StoreDep, _user: UserDep) -> None:
    """Delete a network that no job refers to."""
    with store.begin() as tx:
        uploads.remove(tx, uploads.get(tx, Model, ref))


@router.get("/{ref}/preflight", responses=documented(401, 403, 404, 409, 422))
def preflight(
    ref: Ref,
    device: Annotated[str, Query(max_length=80)],
    store: StoreDep,
    blobs: BlobsDep,
    settings: SettingsDep,
    _user: UserDep,
) -> Preflight:
    """Show how a network's time on a device divides among its layers, and how much of this time pruning can save."""
    with store.read() as tx:
        model = uploads.get(tx, Model, ref)
        if model.state != "ready":
            raise Conflict(f"model {model.name!r} is {model.state}", code="state")
        device_id = devices.get(tx, device).id
        table = latency.table(tx, device_id)
    path, most = blobs.path(model.sha256), checking.limits(settings)
    told = asked_forms.told(store, blobs, model.sha256, device_id)
    fused = {wiring: each.sets for wiring, each in told.items() if each.sets}
    found = checking.in_turn(lambda: intake.preflight(path, table, most, settings={}, fused=fused))
    if "untold" in found:
        raise Conflict(f"{found['untold']}: POST .../predict with fill, or start a job on it", code="runtime_missing")
    return Preflight(model=model.id, device=device_id, device_name=table.device.name, **found)


def _create(upload: Upload, store: Store, blobs: Blobs, settings: Settings, once: Once) -> Response:
    name = checked_name(upload.fields)
    preprocessing = Preprocessing.from_json(json_object(upload.fields, "preprocessing")).to_json()
    output = short_text(upload.fields, "output", MAX_OUTPUT)
    sha256 = upload.blob.sha256
    settled = (sha256, preprocessing, output)

    def row(tx: Tx) -> Model:
        blobs.record(tx, upload.blob)
        own = {"preprocessing": preprocessing, "output": output}
        return Model(id=new_id("mdl"), name=name, sha256=sha256, created_at=tx.now, **own)

    arrival = checking.Arrival(
        kind=Model,
        name=name,
        same=lambda model: (model.sha256, model.preprocessing, model.output) == settled,
        check=partial(
            intake.check_model, blobs.path(sha256), upload.file_name, preprocessing, checking.limits(settings), output
        ),
        drop=partial(blobs.drop, store, sha256),
        row=row,
        public=partial(_public, settings=settings),
    )
    of = {"name": name, "sha256": sha256, "preprocessing": preprocessing}
    if output is not None:  # left out if None, so that keys from before this field existed stay valid
        of["output"] = output
    return checking.answer(arrival, of, once, store, settings)


def _public(tx: Tx, model: Model, settings: Settings) -> ModelPublic:
    shown = {name: getattr(model, name) for name in ModelPublic.model_fields}
    return ModelPublic.model_validate({**shown, **uploads.outcome(tx, model, checking.wall(settings))})
