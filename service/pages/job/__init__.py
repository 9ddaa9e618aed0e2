"""Job page: its result first, then the growing front, the layers, all evaluations, the log and the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from sqlalchemy import select

from search.metrics import COUNTED, METRICS, base_metric, latency_metric, row_of, shown_counts
from service.depends import State
from service.jobs.fronts import axes, front_of
from service.jobs.layers import layers_of
from service.jobs.view import artifact_public, evaluation_public, job_public, log_line
from service.pages.job.layers import layer_tables
from service.pages.page import Page
from service.store import events
from service.store.devices import devices
from service.store.jobs import artifacts, conductors, evaluations, jobs
from service.store.uploads import datasets, models

SHOWN_EVALUATIONS = 200
LOG_LINES = 1000


def _fill(request: Request, state: State) -> Mapping[str, Any]:
    with state.store.read() as tx:
        since = events.newest(tx)
        row = jobs.get(tx, request.path_params["job_ref"])
        job = job_public(tx, row)
        recorded = evaluations.of_job(tx, row.id)
        front = front_of(recorded, row.request)
        files = tx.session.execute(select(artifacts.Artifact).where(artifacts.Artifact.job_id == row.id)).scalars()
        log = events.of_topic(tx, jobs.topic(row.id), ("log.line",), None, LOG_LINES)
        names = {device.id: device.name for device in tx.session.execute(devices.rows()).scalars()}
        model, dataset = models.find(tx, job.model), datasets.find(tx, job.dataset)
        latency_keys = [latency_metric(target["device"]) for target in job.targets]
        objective = job.objective["metric"]
        aimed = _axis(latency_keys[0] if objective == "latency_ms" and latency_keys else objective)
        networks = [each.metrics for each in (job.original, job.control, job.best, job.nearest) if each is not None]
        cost = aimed if objective != job.metric else _axis(axes(row.request)[1][0])
        return {
            "cost": cost,
            "score": row_of(job.metric),
            "counts": shown_counts(networks) or [each for each in COUNTED if not each.part_of],
            "counts_of_evaluations": [each for each in COUNTED if not each.part_of or each.name == cost["key"]],
            "objective": aimed,
            "job": job,
            "evaluations": [evaluation_public(each, front) for each in reversed(recorded[-SHOWN_EVALUATIONS:])],
            "total": len(recorded),
            "layers": layer_tables(layers_of(tx, state.blobs, row), job.targets[0]["device"] if job.targets else None),
            "artifacts": [artifact_public(file) for file in files],
            "log": [log_line(line) for line in log],
            "device_names": names,
            "latency_keys": latency_keys,
            "model_name": model.name if model else job.model,
            "dataset_name": dataset.name if dataset else job.dataset,
            "since": since,
            "executor": conductors.best(conductors.alive(tx)),
        }


def _axis(key: str) -> dict[str, Any]:
    metric = METRICS.get(base_metric(key)) or row_of(key)
    return {
        "key": key,
        "label": metric.label,
        "unit": metric.unit,
        "factor": metric.factor,
        "goal": metric.goal,
        "row": metric,
    }


PAGE = Page("job", "/jobs/{job_ref}", _fill)
