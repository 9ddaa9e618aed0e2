"""Every check of a submitted job that needs no measurement.

`resolve` turns names into ids and fills in every default, so that the stored request is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.devices import quarantine
from service.errors import InvalidInput
from service.jobs import catalogue
from service.jobs.body import JobCreate, TargetBody, pairs
from service.jobs.inputs import check_fit, dataset_of, model_of
from service.jobs.objective import check_lowered, check_metrics, check_room
from service.jobs.oddities import all_random, odd
from service.jobs.warnings import JobWarning, lasting
from service.store.base import Tx
from service.store.devices import devices
from service.store.uploads.datasets import Dataset
from service.store.uploads.models import Model
from workers.plan import Statistic

if TYPE_CHECKING:
    from compress.task import Task


@dataclass(frozen=True)
class Resolved:
    """A job that can be queued. `request` is its body with ids and all defaults filled in."""

    request: Mapping[str, Any]
    model: Model
    dataset: Dataset
    warnings: tuple[JobWarning, ...]


def resolve(tx: Tx, body: JobCreate) -> Resolved:
    """Check a job against the store and return it resolved.

    Raises:
        InvalidInput: a check fails; the error names the first wrong field and its value.
    """
    from search.metrics import METRICS

    task = catalogue.task(body.task)
    wanted = body.objective.metric or task.metric
    check_metrics(body, task)
    _check_augment(body.training.augment, task)
    check_room(body.limits)
    model, dataset = model_of(tx, body.model), dataset_of(tx, body.dataset)
    scored = check_fit(model, dataset, task)
    methods = catalogue.check_named("methods", pairs(body.methods), catalogue.methods())
    _check_prunable(model, methods)
    targets, warnings = _targets(tx, body.targets)
    warnings += lasting(scored)
    strategies = catalogue.check_named("strategies", pairs(body.strategies), catalogue.strategies())
    names = [item["name"] for item in methods]
    _check_sparse([item["name"] for item in strategies], names)
    check_lowered(wanted, task.metric, names)
    warnings += lasting([*odd(body, task, names), *all_random(strategies, body.budget.evaluations)])
    request = {
        **body.model_dump(mode="json", exclude={"model", "dataset", "methods", "strategies", "targets"}),
        "model": model.id,
        "dataset": dataset.id,
        "methods": methods,
        "strategies": strategies,
        "targets": targets,
        "metric": task.metric,
        "objective": {"metric": wanted, "goal": METRICS[wanted].goal},
    }
    return Resolved(request, model, dataset, tuple(warnings))


def _check_sparse(strategies: Sequence[str], methods: Sequence[str]) -> None:
    """Raise InvalidInput if a strategy searches for a sparsity and no method of the job sets a sparsity."""
    if any(catalogue.methods()[name].sparse for name in methods):
        return
    sparse = ", ".join(name for name, family in catalogue.methods().items() if family.sparse)
    for index, name in enumerate(strategies):
        if catalogue.strategies()[name].needs_sparsity:
            wanted = (
                f"searches for one sparsity of the network: add one of {sparse} to the methods ({', '.join(methods)})"
            )
            raise InvalidInput(f"strategies.{index}", name, wanted)


def _check_augment(augment: str, task: Task) -> None:
    """Raise InvalidInput if the task's targets would no longer be right for the augmented images."""
    if augment not in ("auto", *task.augments):
        allowed = ", ".join(sorted(task.augments))
        raise InvalidInput("training.augment", augment, f"the task {task.name} allows {allowed}, or auto")


def _check_prunable(model: Model, methods: list[dict[str, Any]]) -> None:
    if [item["name"] for item in methods] != ["filter_prune"] or any(g["prunable"] for g in model.groups):
        return
    reasons = "; ".join(sorted({str(group["reason"]) for group in model.groups})) or "it has none"
    raise InvalidInput("methods", "filter_prune", f"no channel group of model {model.name} can be pruned: {reasons}")


def _targets(tx: Tx, given: list[TargetBody]) -> tuple[list[dict[str, Any]], list[JobWarning]]:
    targets: list[dict[str, Any]] = []
    warnings: list[JobWarning] = []
    for index, target in enumerate(given):
        device = devices.find(tx, target.device)
        if device is None:
            raise InvalidInput(f"targets.{index}.device", target.device, "there is no such device")
        if any(other["device"] == device.id for other in targets):
            raise InvalidInput(f"targets.{index}.device", target.device, "is named twice")
        state = devices.state(tx, device)
        if state in ("offline", "quarantined"):
            why = quarantine.reason(tx, device)
            text = f"device {device.name} is {state}: the job waits for it" + (f" ({why})" if why else "")
            warnings.append(JobWarning(text, until_verdict=True))
        default: Statistic = "p50" if target.max_latency_ms is not None else "quiet"
        targets.append(
            {
                "device": device.id,
                "device_name": device.name,
                "max_latency_ms": target.max_latency_ms,
                "max_latency_ratio": target.max_latency_ratio,
                "statistic": target.statistic or default,
                "batch": target.batch,
            }
        )
    return targets, warnings
