"""Leases: work that agents pull, and its results."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, RootModel
from starlette.responses import FileResponse, Response

from hw_profiles.wire.lease import Lease, LeaseRequest
from hw_profiles.wire.result import Completion, Result, Surrender
from service.depends import AgentDep, BlobsDep, Caller, OnceDep, SettingsDep, StoreDep
from service.devices import handing_out, lease_results
from service.devices.timing_files import block_file
from service.errors import Conflict, Forbidden, InvalidInput, NotFound
from service.files.blobs import Blobs
from service.http.idempotency import Answer
from service.http.multipart import form_schema, receive
from service.http.problem_details import documented
from service.store.base import Tx
from service.store.blobs import StoredBlob
from service.store.devices import agent_leases
from service.store.engine import Store

router = APIRouter(prefix="/api/v1/leases", tags=["agents"])

RETRY_AFTER_S = 1
LeaseId = Annotated[str, Path(max_length=80)]
Key = Annotated[str, Path(max_length=80)]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
MEDIA_TYPE = "application/octet-stream"


class Taken(BaseModel):
    """Confirms that the server has stored the result."""

    state: str


class _NothingToDo(Exception):
    """Raised to roll back a grant that found no work."""


@router.post(
    "",
    response_model=Lease,
    responses={
        204: {"description": "There is nothing to do; ask again after Retry-After seconds"},
        **documented(401, 403, 404, 422),
    },
)
def take_lease(body: LeaseRequest, caller: AgentDep, store: StoreDep, once: OnceDep) -> Response:
    """Lease the next work for this agent's devices."""
    if body.agent_id != caller.agent_id:
        raise Forbidden("this token belongs to another agent", code="foreign_agent")
    replayed = once.replayed(body.to_json())
    if replayed is not None:
        return replayed
    digests = handing_out.prepare(store, body.agent_id, body)
    if digests is None:
        return _nothing()

    def make(tx: Tx) -> Answer:
        granted = agent_leases.grant(tx, body.agent_id, body, digests)
        if granted is None:
            raise _NothingToDo
        return Answer(RootModel[Lease](handing_out.public(tx, granted)), status=200)

    try:
        return once(make, of=body.to_json())
    except _NothingToDo:
        return _nothing()


def _nothing() -> Response:
    return Response(status_code=204, headers={"Retry-After": str(RETRY_AFTER_S)})


@router.get(
    "/{lease_id}/files/{sha256}",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {}}}, **documented(401, 403, 404, 410)},
)
def lease_file(lease_id: LeaseId, sha256: Digest, caller: AgentDep, store: StoreDep, blobs: BlobsDep) -> Response:
    """Return an ONNX file of an item. To protect users' weights, only files of the lease are sent, and only while the
    lease lasts.
    """
    with store.read() as tx:
        lease = agent_leases.own(tx, lease_id, caller.agent_id or "")
        agent_leases.held(lease, lease.epoch, tx.now)
        try:
            op = handing_out.op_of_file(tx, lease, sha256)
        except KeyError:
            raise NotFound("file in this lease", sha256) from None
    headers = {"ETag": f'"{sha256}"'}
    if op is None:
        return FileResponse(blobs.path(sha256), media_type=MEDIA_TYPE, headers=headers)
    return Response(block_file(op, sha256), media_type=MEDIA_TYPE, headers=headers)


@router.put(
    "/{lease_id}/files/{sha256}",
    openapi_extra=form_schema({}),
    responses=documented(401, 403, 404, 409, 410, 413, 422),
)
async def put_file(
    lease_id: LeaseId,
    sha256: Digest,
    request: Request,
    caller: AgentDep,
    store: StoreDep,
    blobs: BlobsDep,
    settings: SettingsDep,
) -> Taken:
    """Store a file that the result of a `check` will refer to: the engine's own file, or the outputs of that file.
    Idempotent.
    """
    await run_in_threadpool(_may_send, store, lease_id, caller)
    upload = await receive(request, blobs, settings.max_model_bytes, ())
    if upload.blob.sha256 != sha256:
        raise InvalidInput("sha256", upload.blob.sha256, f"is not the file with sha256 {sha256}")
    await run_in_threadpool(_record, store, blobs, upload.blob)
    return Taken(state="taken")


def _may_send(store: Store, lease_id: str, caller: Caller) -> None:
    """Check that the agent's lease has checks, because the agent may send files only for checks."""
    with store.begin() as tx:
        lease = agent_leases.own(tx, lease_id, caller.agent_id or "")
        agent_leases.held(lease, lease.epoch, tx.now)
    if lease.kind != "check":
        raise Conflict(f"a lease of kind {lease.kind!r} has no files to send", code="no_check")


def _record(store: Store, blobs: Blobs, blob: StoredBlob) -> None:
    with store.begin() as tx:
        blobs.record(tx, blob)


@router.put("/{lease_id}/results/{key}", responses=documented(401, 403, 404, 409, 410, 422))
def put_result(lease_id: LeaseId, key: Key, body: Result, caller: AgentDep, store: StoreDep) -> Taken:
    """Store the timing, fused sets or conversion of one item. Idempotent: only the first result for a key counts."""
    with store.begin() as tx:
        lease = agent_leases.own(tx, lease_id, caller.agent_id or "")
        lease_results.put(tx, lease, key, body)
    return Taken(state="taken")


@router.post("/{lease_id}/complete", responses=documented(401, 403, 404, 409, 410, 422))
def complete_lease(lease_id: LeaseId, body: Completion, caller: AgentDep, store: StoreDep) -> Taken:
    """End a lease after all its results are reported."""
    with store.begin() as tx:
        agent_leases.complete(tx, agent_leases.own(tx, lease_id, caller.agent_id or ""), body)
    return Taken(state="completed")


@router.post("/{lease_id}/fail", responses=documented(401, 403, 404, 409, 410, 422))
def fail_lease(lease_id: LeaseId, body: Surrender, caller: AgentDep, store: StoreDep) -> Taken:
    """Give a lease back. The lease's open items are queued again."""
    with store.begin() as tx:
        agent_leases.surrender(tx, agent_leases.own(tx, lease_id, caller.agent_id or ""), body)
    return Taken(state="failed")
