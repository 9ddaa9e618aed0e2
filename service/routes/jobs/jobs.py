"""Jobs: submit, list and control them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from service.depends import BlobsDep, OnceDep, Page, PageDep, SettingsDep, StoreDep, UserDep, paged
from service.errors import InvalidInput
from service.http.idempotency import Answer
from service.http.json_route import JsonRoute
from service.http.problem_details import documented
from service.jobs.admission import check_before_queueing
from service.jobs.body import JobCreate
from service.jobs.submission import resolve
from service.jobs.view import JobPublic, job_public
from service.store.base import Tx
from service.store.devices import devices
from service.store.engine import Store
from service.store.jobs import job_states, jobs
from service.store.jobs.jobs import Job
from service.store.jobs.states import State

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"], route_class=JsonRoute)

JobRef = Annotated[str, Path(max_length=80, description="id or name")]
SORTS = {
    name: getattr(Job, name)
    for name in ("created_at", "started_at", "finished_at", "name", "state", "evaluations_done")
}


@router.post("", status_code=201, response_model=JobPublic, responses=documented(401, 403, 409, 413, 422, 429))
def create_job(
    body: JobCreate, once: OnceDep, store: StoreDep, blobs: BlobsDep, settings: SettingsDep, _user: UserDep
) -> Response:
    """Queue a job after all checks that need no device."""
    kept = once.replayed(body)
    if kept is not None:
        return kept
    warnings = check_before_queueing(store, blobs, body)

    def make(tx: Tx) -> Answer:
        resolved = resolve(tx, body)
        told = [each.to_json() for each in (*resolved.warnings, *warnings)]
        job = jobs.create(tx, resolved.request, warnings=told, max_queued=settings.max_queued_jobs)
        return Answer(job_public(tx, job), headers={"Location": f"{router.prefix}/{job.id}"})

    return once(make, of=body)


@router.get("", responses=documented(401, 403, 422))
def list_jobs(
    store: StoreDep,
    _user: UserDep,
    page: PageDep,
    state: Annotated[State | None, Query()] = None,
    device: Annotated[str | None, Query(max_length=80)] = None,
) -> Page[JobPublic]:
    """List jobs, the newest first unless `sort` says otherwise."""
    with store.read() as tx:
        rows = jobs.selected(state, _device_id(tx, device) if device is not None else None)
        return paged(tx, rows, page, SORTS, Job.id, partial(job_public, tx))


def _device_id(tx: Tx, ref: str) -> str:
    device = devices.find(tx, ref)
    if device is None:
        raise InvalidInput("device", ref, "there is no such device")
    return device.id


@router.get("/{job_ref}", responses=documented(401, 403, 404))
def get_job(job_ref: JobRef, store: StoreDep, _user: UserDep) -> JobPublic:
    """Return one job."""
    with store.read() as tx:
        return job_public(tx, jobs.get(tx, job_ref))


@router.post("/{job_ref}/cancel", responses=documented(401, 403, 404, 409, 422))
def cancel_job(job_ref: JobRef, store: StoreDep, _user: UserDep) -> JobPublic:
    """Cancel a job. This has no effect on a job that has ended."""
    return _steer(store, job_ref, job_states.cancel)


@router.post("/{job_ref}/pause", responses=documented(401, 403, 404, 409, 422))
def pause_job(job_ref: JobRef, store: StoreDep, _user: UserDep) -> JobPublic:
    """Pause a job. Its `state` becomes `paused` when its current work has ended."""
    return _steer(store, job_ref, job_states.pause)


@router.post("/{job_ref}/resume", responses=documented(401, 403, 404, 409, 422))
def resume_job(job_ref: JobRef, store: StoreDep, _user: UserDep) -> JobPublic:
    """Continue a paused job."""
    return _steer(store, job_ref, job_states.resume)


def _steer(store: Store, ref: str, move: Callable[[Tx, Job], None]) -> JobPublic:
    with store.begin() as tx:
        job = jobs.get(tx, ref)
        move(tx, job)
        tx.session.flush()
        tx.session.refresh(job)
        return job_public(tx, job)


@router.post(
    "/{job_ref}/retry", status_code=201, response_model=JobPublic, responses=documented(401, 403, 404, 409, 422, 429)
)
def retry_job(job_ref: JobRef, once: OnceDep, settings: SettingsDep, _user: UserDep) -> Response:
    """Queue the same request as a new job, whose `retry_of` is the id of this job."""

    def make(tx: Tx) -> Answer:
        job = jobs.retry(tx, jobs.get(tx, job_ref), max_queued=settings.max_queued_jobs)
        return Answer(job_public(tx, job), headers={"Location": f"{router.prefix}/{job.id}"})

    return once(make, of={"job": job_ref})


@router.delete("/{job_ref}", status_code=204, responses=documented(401, 403, 404, 409))
def delete_job(job_ref: JobRef, store: StoreDep, _user: UserDep) -> None:
    """Delete a job that has ended, with its evaluations and artifacts."""
    with store.begin() as tx:
        jobs.remove(tx, jobs.get(tx, job_ref))
