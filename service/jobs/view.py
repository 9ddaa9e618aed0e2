"""Jobs and their parts in their public form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from compress.tasks import DEFAULT
from search.metrics import COUNTED
from service.devices import quarantine
from service.jobs.warnings import texts_of
from service.store.base import Tx
from service.store.devices import devices
from service.store.events import Event
from service.store.jobs import conductors, jobs
from service.store.jobs.artifacts import Artifact
from service.store.jobs.evaluations import EvaluationRow
from service.store.jobs.jobs import Job
from service.store.jobs.states import State
from workers.progress import PHASES, Phase


class Progress(BaseModel):
    """Progress of a job. `done` of `total` steps of the phase are finished. `fraction` is the finished part of the
    whole job, with equal weight for each phase.
    """

    fraction: float
    done: float
    total: float


class WaitingFor(BaseModel):
    """The device that a job is waiting for; the wait does not count towards the job's `wall_s`. `reason` says why a
    quarantined device cannot be used and what ends it.
    """

    device: str
    since: datetime
    reason: str | None = None


class Failure(BaseModel):
    """Reason for a job's failure."""

    code: str
    step: str
    field: str | None
    detail: str


class Latency(BaseModel):
    """Latencies on one device, in milliseconds; null if a latency was not measured or predicted."""

    model_config = ConfigDict(extra="allow")

    predicted: float | None = None
    low: float | None = None
    high: float | None = None
    measured: float | None = None
    measured_high: float | None = None


class Summary(BaseModel):
    """One network of the result table. `metrics` holds the network's metrics by name. The metrics of the contract's
    first version also have separate fields.
    """

    model_config = ConfigDict(extra="allow")

    evaluation_id: str | None = None
    strategy: str | None = None
    accuracy: float | None = None
    test_accuracy: float | None = None
    latency_ms: dict[str, Latency] = {}
    macs: int | None = None
    parameters: int | None = None
    size_bytes: int | None = None
    nonzeros: int | None = None
    stored_bytes: int | None = None
    metrics: dict[str, float] = {}

    @model_validator(mode="before")
    @classmethod
    def _with_metrics(cls, row: object) -> object:
        """Collect `metrics` from the row's separate fields; rows of older jobs have only these."""
        if not isinstance(row, Mapping):
            return row
        return {"metrics": {each.name: row[each.name] for each in COUNTED if row.get(each.name) is not None}, **row}


class DeviceResult(BaseModel):
    """The result on one device of a job with several devices: the best network within the limits of this device alone,
    or the nearest to them. `file` is the name of the artifact that holds the network.
    """

    device: str
    verdict: Literal["met", "missed"]
    network: Summary
    file: str


class JobPublic(BaseModel):
    """A job: the request with its names resolved to ids, and the job's current state. `queued_behind` says which
    running job keeps a queued job from starting by waiting for its device. `verdict`, `best` and `nearest` are about
    one network for all devices; `devices` has the result on each device, once the networks of a job with several
    devices are judged.
    """

    id: str
    name: str
    model: str
    dataset: str
    task: str = DEFAULT
    metric: str
    objective: dict[str, Any]
    targets: list[dict[str, Any]]
    limits: dict[str, float | None]
    methods: list[dict[str, Any]]
    strategies: list[dict[str, Any]]
    budget: dict[str, Any]
    training: dict[str, Any]
    seed: int
    force: bool

    state: State
    signal: Literal["continue", "pause", "cancel"]
    verdict: Literal["met", "missed"] | None
    phase: Phase
    progress: Progress
    eta_s: float | None
    warnings: list[str]
    waiting_for: WaitingFor | None
    queued_behind: str | None = None
    original: Summary | None
    control: Summary | None
    best: Summary | None
    nearest: Summary | None
    devices: list[DeviceResult] | None = None
    evaluations_done: int
    failure: Failure | None
    retry_of: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class EvaluationPublic(BaseModel):
    """The result of one candidate. `table_epochs` maps each device id to the table snapshot that gave the latency.
    `searched` is true for evaluations of the search, and false for evaluations in which the finalists were trained and
    timed.
    """

    id: str
    number: int
    strategy: str
    status: Literal["completed", "stopped", "infeasible", "failed"]
    fidelity: Literal["F0", "F1", "F2", "F3", "F4", "F5"]
    values: dict[str, Any]
    metrics: dict[str, float]
    feasible: bool
    on_front: bool
    searched: bool
    cached: bool
    elapsed_s: float
    reason: str
    table_epoch: int | None
    table_epochs: dict[str, int]
    created_at: datetime


class ArtifactPublic(BaseModel):
    """A finished file; its bytes are under `/api/v1/artifacts/{id}/content`."""

    id: str
    kind: Literal["onnx", "engine", "report_html", "report_json", "manifest"]
    name: str
    size_bytes: int
    sha256: str
    created_at: datetime


class EpochPublic(BaseModel):
    """One epoch of the control or of a finalist. `loss` is the mean over its steps. The score, in the field of the
    task's metric, is measured on a part of the validation images, and null if an output was not finite.
    """

    model_config = ConfigDict(extra="allow")

    network: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float | None = None
    elapsed_s: float


class Training(BaseModel):
    """All epochs of a job, in the order in which their networks began."""

    items: list[EpochPublic]


class LogLine(BaseModel):
    """One line of a job's log."""

    number: int
    at: datetime
    level: Literal["info", "warning", "error"]
    text: str


class Log(BaseModel):
    """The last lines of a log, the oldest first. `before` is the number to send for earlier lines; null if there are
    none.
    """

    items: list[LogLine]
    before: int | None


def job_public(tx: Tx, job: Job) -> JobPublic:
    """Convert the row of a job."""
    kept = {name: getattr(job, name) for name in JobPublic.model_fields if name in Job.__table__.columns}
    return JobPublic.model_validate(
        {
            **{name: value for name, value in job.request.items() if name in JobPublic.model_fields},
            **kept,
            "warnings": texts_of(job.warnings),
            "waiting_for": _waiting_for(tx, job),
            "queued_behind": _queued_behind(tx, job),
            "phase": job.phase or PHASES[0],
            "progress": Progress(fraction=_fraction(job), done=job.done, total=job.total),
        }
    )


def _waiting_for(tx: Tx, job: Job) -> dict[str, Any] | None:
    if job.waiting_for is None:
        return None
    device = devices.find(tx, job.waiting_for["device"])
    return {**job.waiting_for, "reason": None if device is None else quarantine.reason(tx, device)}


def _queued_behind(tx: Tx, job: Job) -> str | None:
    """Name the job that keeps a queued job waiting; None if a conductor is free or no running job waits."""
    if job.state != "queued":
        return None
    running = tx.session.execute(jobs.selected("running").order_by(Job.created_at)).scalars().all()
    stuck = next((each for each in running if each.waiting_for is not None), None)
    if stuck is None or stuck.waiting_for is None or len(running) < len(conductors.alive(tx)):
        return None
    device = devices.find(tx, stuck.waiting_for["device"])
    return f"queued behind {stuck.name}, which waits for device {'that was deleted' if device is None else device.name}"


def _fraction(job: Job) -> float:
    if job.state == "succeeded":
        return 1.0
    begun = next(index for index, phase in enumerate(PHASES) if phase == (job.phase or PHASES[0]))
    within = job.done / job.total if job.total else 0.0
    return (begun + within) / len(PHASES)


def evaluation_public(row: EvaluationRow, front: Set[str]) -> EvaluationPublic:
    """Convert the row of an evaluation; `front` has the ids of the evaluations on the job's front."""
    epochs: dict[str, int] = row.table_epochs
    return EvaluationPublic.model_validate(
        {
            **{name: getattr(row, name) for name in EvaluationPublic.model_fields if hasattr(row, name)},
            "values": row.candidate["values"],
            "on_front": row.id in front,
            "table_epoch": max(epochs.values(), default=None),
        }
    )


def artifact_public(row: Artifact) -> ArtifactPublic:
    """Convert the row of an artifact."""
    return ArtifactPublic.model_validate({name: getattr(row, name) for name in ArtifactPublic.model_fields})


def training(found: Iterable[Event]) -> Training:
    """Convert events of type `training.epoch`, in order. Of an epoch that was trained again, the last event counts."""
    newest = {(event.data["network"], event.data["epoch"]): event.data for event in found}
    began = {network: place for place, network in enumerate(dict.fromkeys(network for network, _ in newest))}
    ordered = sorted(newest, key=lambda key: (began[key[0]], key[1]))
    return Training(items=[EpochPublic.model_validate(newest[key]) for key in ordered])


def log_line(event: Event) -> LogLine:
    """Return the log line of an event of type `log.line`."""
    return LogLine(number=event.number, at=event.at, level=event.data["level"], text=event.data["text"])
