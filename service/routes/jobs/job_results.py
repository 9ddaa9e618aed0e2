"""Results of a job: evaluations, their front, the log, and the files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import Select

from service.depends import BlobsDep, Page, PageDep, PageQuery, StoreDep, UserDep, paged
from service.errors import Conflict
from service.http.problem_details import documented
from service.jobs.fronts import deciding, front_of, on_device, under
from service.jobs.layers import LayersPublic, layers
from service.jobs.view import (
    ArtifactPublic,
    EvaluationPublic,
    Log,
    Training,
    artifact_public,
    evaluation_public,
    log_line,
    training,
)
from service.routes.jobs.jobs import JobRef
from service.store import events
from service.store.base import Tx
from service.store.jobs import artifacts, evaluations, jobs
from service.store.jobs.artifacts import Artifact
from service.store.jobs.evaluations import EvaluationRow
from service.store.jobs.jobs import Job

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])
MOST_EPOCHS = 100_000
"""Largest number of epochs in one answer; the last ones are shown."""


@router.get("/{job_ref}/evaluations", responses=documented(401, 403, 404, 422))
def list_evaluations(
    job_ref: JobRef,
    store: StoreDep,
    _user: UserDep,
    page: PageDep,
    since: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> Page[EvaluationPublic]:
    """List the evaluations whose number is above `since`, ordered by number unless `sort` says otherwise."""
    with store.read() as tx:
        job = jobs.get(tx, job_ref)
        front = front_of(evaluations.of_job(tx, job.id), job.request)
        return _evaluations(tx, evaluations.selected(job.id, since), page, front)


@router.get("/{job_ref}/front", responses=documented(401, 403, 404, 409, 422))
def read_front(
    job_ref: JobRef,
    store: StoreDep,
    _user: UserDep,
    page: PageDep,
    device: Annotated[str | None, Query(max_length=80, description="id or name of a device of the job")] = None,
    max_latency_ms: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
    max_accuracy_drop: Annotated[float | None, Query(ge=0, le=1)] = None,
) -> Page[EvaluationPublic]:
    """List the evaluations of the search that no other evaluation beats. If limits are given, list the front within
    these limits.

    A job with several devices has a front of each device: with `device`, only this device's latency counts. Without it,
    an evaluation is on the front unless another one is at least as good on every device.

    Candidates that are pruned and corrected (F2) and candidates from full training runs (F4) have separate fronts. A
    drop is in the metric of the job's task, relative to the original.
    """
    with store.read() as tx:
        job = jobs.get(tx, job_ref)
        request = job.request if device is None else on_device(job.request, device)
        lowest = None if max_accuracy_drop is None else _reference(job) - max_accuracy_drop
        rows = evaluations.of_job(tx, job.id)
        kept = {each.id for each in under(rows, request, max_latency_ms=max_latency_ms, min_score=lowest)}
        front = front_of((row for row in rows if row.id in kept), request)
        on_front = evaluations.selected(job.id).where(EvaluationRow.id.in_(sorted(front)))
        return _evaluations(tx, on_front, page, front)


def _evaluations(tx: Tx, rows: Select[EvaluationRow], page: PageQuery, front: frozenset[str]) -> Page[EvaluationPublic]:
    columns = {"number": EvaluationRow.number, "elapsed_s": EvaluationRow.elapsed_s}
    return paged(tx, rows, page, columns, EvaluationRow.number, lambda row: evaluation_public(row, front), "number")


def _reference(job: Job) -> float:
    """Return the score of the original network, from which drops are measured."""
    metric = deciding(job.request)
    if job.original is None or job.original.get(metric) is None:
        raise Conflict("the original has not been scored yet, so a drop cannot be computed", code="state")
    return float(job.original[metric])


@router.get("/{job_ref}/layers", responses=documented(401, 403, 404, 409, 422))
def read_layers(
    job_ref: JobRef,
    store: StoreDep,
    blobs: BlobsDep,
    _user: UserDep,
    evaluation: Annotated[str | None, Query(max_length=80, description="id of an evaluation of a finalist")] = None,
) -> LayersPublic:
    """Return what happened to each layer of the job's result, or of the finalist with this evaluation, and why."""
    with store.read() as tx:
        return layers(tx, blobs, jobs.get(tx, job_ref), evaluation)


@router.get("/{job_ref}/training", responses=documented(401, 403, 404, 422))
def read_training(job_ref: JobRef, store: StoreDep, _user: UserDep) -> Training:
    """List the epochs of the control and the finalists, as far as they are trained. They are kept as long as events
    are.
    """
    with store.read() as tx:
        job = jobs.get(tx, job_ref)
        return training(events.of_topic(tx, jobs.topic(job.id), ("training.epoch",), None, MOST_EPOCHS))


@router.get("/{job_ref}/log", responses=documented(401, 403, 404, 422))
def read_log(
    job_ref: JobRef,
    store: StoreDep,
    _user: UserDep,
    tail: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    before: Annotated[int | None, Query(ge=1)] = None,
) -> Log:
    """Return the last `tail` lines of the log, or the last `tail` lines before line number `before`."""
    with store.read() as tx:
        job = jobs.get(tx, job_ref)
        rows = events.of_topic(tx, jobs.topic(job.id), ("log.line",), before, tail + 1)
    lines = [log_line(row) for row in rows]
    kept = lines[-tail:]
    return Log(items=kept, before=kept[0].number if len(lines) > tail else None)


@router.get("/{job_ref}/artifacts", responses=documented(401, 403, 404, 422))
def list_artifacts(job_ref: JobRef, store: StoreDep, _user: UserDep, page: PageDep) -> Page[ArtifactPublic]:
    """List the finished files of a job."""
    with store.read() as tx:
        job = jobs.get(tx, job_ref)
        columns = {"created_at": Artifact.created_at, "kind": Artifact.kind, "name": Artifact.name}
        return paged(tx, artifacts.selected(job.id), page, columns, Artifact.id, artifact_public, "created_at")
