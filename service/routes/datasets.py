"""Data sets: labelled images in one file, with every label and pixel checked."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from compress.data.checks import MAX_CLASSES
from compress.data.formats.layout import LAYOUTS
from hw_profiles.device import NAME_PATTERN
from service.depends import BlobsDep, OnceDep, Page, PageDep, SettingsDep, StoreDep, UserDep, paged
from service.errors import InvalidInput
from service.files.blobs import Blobs
from service.http.downloads import file_answer
from service.http.idempotency import Once
from service.http.multipart import Upload, form_schema, receive
from service.http.problem_details import documented
from service.http.upload_fields import checked_name, whole_number
from service.settings import Settings
from service.store.base import Tx, new_id
from service.store.engine import Store
from service.store.uploads import uploads
from service.store.uploads.datasets import Dataset
from service.uploads import checking, intake

router = APIRouter(prefix="/api/v1/datasets", tags=["datasets"])

Ref = Annotated[str, Path(max_length=80)]
SORTABLE: dict[str, InstrumentedAttribute[Any]] = {
    "name": Dataset.name,
    "created_at": Dataset.created_at,
    "size_bytes": Dataset.size_bytes,
    "train_count": Dataset.train_count,
}
FORM = form_schema(
    {
        "name": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
        "layout": {"type": "string", "enum": list(LAYOUTS), "description": "only for .npz"},
        "classes": {"type": "integer", "minimum": 2, "maximum": MAX_CLASSES},
    }
)


class DatasetPublic(BaseModel):
    """A data set. Counts include the parts drawn from `train` in place of missing parts; all counts are zero while
    `state` is `checking`. `image_shape` is height, width, channels; null if images differ in size. `target_shape` is
    the shape of one label, empty for class numbers. `classes` is the number of classes; 0 if labels are not class
    numbers.
    """

    id: str
    name: str
    sha256: str
    state: uploads.State
    size_bytes: int
    train_count: int
    validation_count: int
    test_count: int
    classes: int
    class_names: list[str]
    image_shape: list[int] | None
    target_shape: list[int] = []
    layout: str | None
    warnings: list[str]
    problem: checking.Refusal | None
    created_at: datetime


@router.post(
    "",
    status_code=201,
    response_model=DatasetPublic,
    openapi_extra=FORM,
    responses={
        200: {"model": DatasetPublic, "description": "The upload is known already"},
        202: {"model": DatasetPublic, "description": "The upload is still being checked"},
        **documented(401, 403, 409, 413, 422),
    },
)
async def create_dataset(
    request: Request, store: StoreDep, blobs: BlobsDep, settings: SettingsDep, once: OnceDep, _user: UserDep
) -> Response:
    """Upload a data set: .npz, Parquet or zip, recognised by its content."""
    upload = await receive(request, blobs, settings.max_dataset_bytes, ("name", "layout", "classes"))
    return await run_in_threadpool(_create, upload, store, blobs, settings, once)


@router.get("", responses=documented(401, 403, 422))
def list_datasets(store: StoreDep, settings: SettingsDep, _user: UserDep, page: PageDep) -> Page[DatasetPublic]:
    """List all data sets."""
    with store.read() as tx:
        return paged(tx, select(Dataset), page, SORTABLE, Dataset.id, partial(_public, tx, settings=settings))


@router.get("/{ref}", responses=documented(401, 403, 404))
def read_dataset(ref: Ref, store: StoreDep, settings: SettingsDep, _user: UserDep) -> DatasetPublic:
    """Return one data set by id or name."""
    with store.read() as tx:
        return _public(tx, uploads.get(tx, Dataset, ref), settings)


@router.head("/{ref}/content", include_in_schema=False)
@router.get("/{ref}/content", response_class=Response, responses=documented(401, 403, 404, 416))
def read_dataset_content(
    ref: Ref,
    store: StoreDep,
    blobs: BlobsDep,
    _user: UserDep,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Response:
    """Download the file as it was uploaded."""
    with store.read() as tx:
        dataset = uploads.get(tx, Dataset, ref)
    file_name = dataset.name + PurePath(dataset.file_name).suffix
    return file_answer(blobs, dataset.sha256, file_name, if_none_match)


@router.delete("/{ref}", status_code=204, responses=documented(401, 403, 404, 409))
def remove_dataset(ref: Ref, store: StoreDep, _user: UserDep) -> None:
    """Delete a data set that no job refers to."""
    with store.begin() as tx:
        uploads.remove(tx, uploads.get(tx, Dataset, ref))


def _create(upload: Upload, store: Store, blobs: Blobs, settings: Settings, once: Once) -> Response:
    name = checked_name(upload.fields)
    layout = _layout(upload.fields.get("layout", "").strip() or None)
    classes = whole_number(upload.fields, "classes", 2, MAX_CLASSES)
    sha256 = upload.blob.sha256

    def check() -> checking.Found:
        limits = checking.limits(settings)
        found = intake.check_dataset(blobs.path(sha256), sha256, layout, classes, limits, upload.file_name)
        counts = {f"{part}_count": count for part, count in found.pop("counts").items()}
        return {**found, **counts, "image_shape": found["image_shape"] or []}

    def row(tx: Tx) -> Dataset:
        blobs.record(tx, upload.blob)
        return Dataset(
            id=new_id("dts"),
            name=name,
            sha256=sha256,
            file_name=upload.file_name,
            layout=layout,
            class_count=classes,
            size_bytes=upload.blob.size_bytes,
            created_at=tx.now,
        )

    settled = (sha256, layout, classes)
    arrival = checking.Arrival(
        kind=Dataset,
        name=name,
        same=lambda dataset: (dataset.sha256, dataset.layout, dataset.class_count) == settled,
        check=check,
        drop=partial(blobs.drop, store, sha256),
        row=row,
        public=partial(_public, settings=settings),
    )
    of = {"name": name, "sha256": sha256, "layout": layout, "classes": classes}
    return checking.answer(arrival, of, once, store, settings)


def _layout(given: str | None) -> str | None:
    if given is not None and given not in LAYOUTS:
        raise InvalidInput("layout", given[:80], f"must be one of {', '.join(LAYOUTS)}")
    return given


def _public(tx: Tx, dataset: Dataset, settings: Settings) -> DatasetPublic:
    shown = {name: getattr(dataset, name) for name in DatasetPublic.model_fields}
    shown |= {"image_shape": dataset.image_shape or None, **uploads.outcome(tx, dataset, checking.wall(settings))}
    return DatasetPublic.model_validate(shown)
