"""The plan of a stored job, as a run needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.tasks import DEFAULT
from service.jobs.inputs import dataset_of, model_of
from service.store.base import Tx
from workers.plan import Budget, DatasetInput, Effort, JobPlan, ModelInput, Named, Target, Training


def plan(tx: Tx, job_id: str, request: Mapping[str, Any], effort: Effort | None = None) -> JobPlan:
    """Return the plan of a stored request, as a run needs it.

    Raises:
        InvalidInput: the model or the data set was deleted.
    """
    model, dataset = model_of(tx, request["model"]), dataset_of(tx, request["dataset"])
    return JobPlan(
        job_id=job_id,
        name=request["name"],
        model=ModelInput(model.sha256, model.name, model.preprocessing, model.output),
        dataset=DatasetInput(dataset.sha256, dataset.name, dataset.file_name, dataset.layout, dataset.class_count),
        methods=tuple(Named(item["name"], item["settings"]) for item in request["methods"]),
        strategies=tuple(Named(item["name"], item["settings"]) for item in request["strategies"]),
        targets=tuple(
            Target(
                device_id=item["device"],
                device_name=item["device_name"],
                max_latency_ms=item["max_latency_ms"],
                max_latency_ratio=item["max_latency_ratio"],
                statistic=item["statistic"],
            )
            for item in request["targets"]
        ),
        limits=request["limits"],
        metric=request["metric"],
        objective_metric=request["objective"]["metric"],
        objective_goal=request["objective"]["goal"],
        budget=Budget(**request["budget"]),
        training=Training(**request["training"]),
        effort=effort or Effort(),
        seed=request["seed"],
        force=request["force"],
        task=request.get("task", DEFAULT),
    )
