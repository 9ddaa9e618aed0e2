"""A submitted job: the schema of its body, and every check that needs no measurement.

`resolve` turns names into ids and fills in every default, so that the stored request is complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

import search.errors
from compress.tasks import DEFAULT
from service.errors import InvalidInput
from service.http.bodies import Body, Name
from service.jobs import catalogue
from service.jobs.warnings import JobWarning, lasting
from service.store.base import Tx
from service.store.devices import devices
from service.store.uploads import datasets, models
from service.store.uploads.datasets import Dataset
from service.store.uploads.models import Model
from workers.plan import Augment, Budget, DatasetInput, Effort, JobPlan, ModelInput, Named, Statistic, Target, Training

if TYPE_CHECKING:
    from compress.task import Task
    from search.metric import Metric

Ref: TypeAlias = Annotated[str, Field(min_length=1, max_length=80)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
MAX_SEED = 2**31 - 1


class ObjectiveBody(Body):
    """The metric to optimise under the limits: that of the job's task if omitted. Other metrics need strategies that
    train whole candidates. `goal` may only be the metric's own.
    """

    metric: str | None = None
    goal: Literal["min", "max"] | None = None


class TargetBody(Body):
    """A device and its latency limit. `statistic` defaults to quiet for ratios and to p50 for milliseconds."""

    device: Ref
    max_latency_ms: Positive | None = None
    max_latency_ratio: Positive | None = None
    statistic: Statistic | None = None
    batch: Literal[1] = 1

    @model_validator(mode="after")
    def _one_limit(self) -> TargetBody:
        if (self.max_latency_ms is None) == (self.max_latency_ratio is None):
            raise ValueError("needs exactly one of max_latency_ms and max_latency_ratio")
        return self


class NamedBody(Body):
    """A strategy or a method with settings; a plain name means the default settings."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


def _with_settings(given: object) -> object:
    if isinstance(given, str):
        return {"name": given}
    if not isinstance(given, Mapping | NamedBody):
        raise ValueError("must be a name, or an object with name and settings")
    return given


Chosen: TypeAlias = Annotated[NamedBody, BeforeValidator(_with_settings, json_schema_input_type=str | NamedBody)]


class BudgetBody(Body):
    """`evaluations` counts F2 evaluations; `wall_s` covers search and training. If it is too short for the epochs of
    the control and one finalist, all of them train for the same smaller number.
    """

    evaluations: int = Field(60, ge=1, le=1_000_000)
    wall_s: float = Field(900.0, gt=0, le=30 * 86400.0)
    finalists: int = Field(3, ge=1, le=100)


class TrainingBody(Body):
    """The training recipe, the same for finalists and control."""

    epochs: int = Field(5, ge=0, le=10_000)
    augment: Augment = "auto"


class JobCreate(Body):
    """A job as the contract defines it. `metric` may only be that of its task."""

    name: Name | None = None
    model: Ref
    dataset: Ref
    task: str = DEFAULT
    metric: str | None = None
    objective: ObjectiveBody = ObjectiveBody()
    targets: list[TargetBody] = Field([], max_length=16)
    limits: dict[str, float | None] = Field(default_factory=dict)
    methods: list[Chosen] = Field([NamedBody(name="filter_prune")], min_length=1, max_length=16)
    strategies: list[Chosen] = Field([NamedBody(name="greedy")], min_length=1, max_length=16)
    budget: BudgetBody = BudgetBody()
    training: TrainingBody = TrainingBody()
    seed: int = Field(0, ge=0, le=MAX_SEED)
    force: bool = False


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
        InvalidInput: a check fails; names the first wrong field and its value.
    """
    from search.metrics import METRICS

    task = catalogue.task(body.task)
    wanted = body.objective.metric or task.metric
    _check_metrics(body, task)
    _check_room(body.limits)
    model, dataset = _model(tx, body.model), _dataset(tx, body.dataset)
    scored = _check_fit(model, dataset, task)
    methods = catalogue.check_named("methods", _pairs(body.methods), catalogue.methods())
    _check_prunable(model, methods)
    targets, warnings = _targets(tx, body.targets)
    warnings += lasting(scored)
    strategies = catalogue.check_named("strategies", _pairs(body.strategies), catalogue.strategies())
    names = [item["name"] for item in methods]
    _check_sparse([item["name"] for item in strategies], names)
    _check_lowered(wanted, task.metric, names)
    warnings += lasting([*_odd(body, task, names), *_all_random(strategies, body.budget.evaluations)])
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


def plan(tx: Tx, job_id: str, request: Mapping[str, Any], effort: Effort | None = None) -> JobPlan:
    """Return the plan of a stored request, as a run needs it.

    Raises:
        InvalidInput: the model or the data set was deleted.
    """
    model, dataset = _model(tx, request["model"]), _dataset(tx, request["dataset"])
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


def _check_metrics(body: JobCreate, task: Task) -> None:
    from search.errors import did_you_mean
    from search.metrics import LIMITS, METRICS

    if body.metric not in (None, task.metric):
        raise InvalidInput("metric", body.metric, f"must be {task.metric}")
    _check_objective(body, task.metric)
    for name, value in body.limits.items():
        if name not in LIMITS:
            given = [each for each, limit in LIMITS.items() if _may_be_limited(limit.metric, task.metric)]
            raise InvalidInput(f"limits.{name}", value, f"no such limit; {did_you_mean(name, given)}")
        limit = LIMITS[name]
        if limit.metric.per_device:
            raise InvalidInput(f"limits.{name}", value, "a limit on latency belongs in `targets`, with its device")
        if not limit.metric.decides:
            score = METRICS[task.metric].heading
            told = f"{score} on the test part decides nothing; limit the {score}"
            raise InvalidInput(f"limits.{name}", value, told)
        if not _may_be_limited(limit.metric, task.metric):
            told = f"the task {task.name} is judged by {task.metric}, not by {limit.metric.name}"
            raise InvalidInput(f"limits.{name}", value, told)
        if value is not None:
            try:
                limit.check(value)
            except search.errors.InvalidInput as error:
                raise InvalidInput(f"limits.{name}", value, error.message) from error


def _may_be_limited(metric: Metric, deciding: str) -> bool:
    """True if `limits` may name the metric: not a latency, which belongs to a device, and not another task's score."""
    return not metric.per_device and _may_be_wanted(metric, deciding)


def _may_be_wanted(metric: Metric, deciding: str) -> bool:
    """True if a job that is judged by the `deciding` score may ask for the metric."""
    return metric.decides and (not metric.scored or metric.name == deciding)


def _check_objective(body: JobCreate, deciding: str) -> None:
    """Raise InvalidInput if a strategy of the job cannot judge candidates by this objective.

    To make a network as small as a limit on its score allows, candidates need the score of a trained network.
    """
    from search.metrics import METRICS

    name, goal = body.objective.metric or deciding, body.objective.goal
    known = [metric.name for metric in METRICS.values() if _may_be_wanted(metric, deciding)]
    if name not in known:
        raise InvalidInput("objective.metric", name, f"must be one of {', '.join(known)}")
    if goal not in (None, METRICS[name].goal):
        raise InvalidInput("objective.goal", goal, f"must be {METRICS[name].goal}")
    if name == deciding:
        return
    if METRICS[name].per_device and not body.targets:
        raise InvalidInput("objective.metric", name, "is a metric of a device, so it needs a target")
    drop = f"max_{deciding}_drop"
    if not body.limits.get(f"min_{deciding}") and body.limits.get(drop) is None:
        told = f"needs a limit on {METRICS[deciding].heading}, such as {drop}"
        raise InvalidInput("objective.metric", name, told)
    known_strategies = catalogue.strategies()
    for index, (strategy, _) in enumerate(_pairs(body.strategies)):
        if strategy in known_strategies and not known_strategies[strategy].trains:
            trains = ", ".join(each for each, family in known_strategies.items() if family.trains)
            wanted = (
                f"judges untrained candidates; if {name} is the objective, only these strategies can be used: {trains}"
            )
            raise InvalidInput(f"strategies.{index}", strategy, wanted)


def _check_room(limits: Mapping[str, float | None]) -> None:
    """Raise InvalidInput if the lower bound of a metric is above its upper bound."""
    from search.metrics import METRICS

    for name in METRICS:
        low, high = limits.get(f"min_{name}"), limits.get(f"max_{name}")
        if low is not None and high is not None and low > high:
            raise InvalidInput(f"limits.min_{name}", low, f"must be at most limits.max_{name}, which is {high:g}")


def _model(tx: Tx, ref: str) -> Model:
    model = models.find(tx, ref)
    if model is None:
        raise InvalidInput("model", ref, "there is no such model")
    _check_ready("model", ref, model.state)
    return model


def _dataset(tx: Tx, ref: str) -> Dataset:
    dataset = datasets.find(tx, ref)
    if dataset is None:
        raise InvalidInput("dataset", ref, "there is no such data set")
    _check_ready("dataset", ref, dataset.state)
    return dataset


def _check_ready(field: str, ref: str, state: str) -> None:
    if state == "checking":
        raise InvalidInput(field, ref, "is still being checked; submit the job when it is ready")
    if state != "ready":
        raise InvalidInput(field, ref, "was refused by its checks")


def _check_fit(model: Model, dataset: Dataset, task: Task) -> list[str]:
    """Check that the data fit the model; return a note on the scored output if only the data determine it.

    Raises:
        InvalidInput: the images do not fit the model's input, or the classes its scored output.
    """
    from compress.data.checks import check_fits
    from compress.data.preprocessing import Preprocessing
    from compress.task import TargetKind

    shape = tuple(dataset.image_shape)
    image_shape = (shape[0], shape[1], shape[2]) if shape else None
    check_fits(image_shape, Preprocessing.from_json(model.preprocessing), _image_shape(model))
    shapes = {each["name"]: tuple(each["shape"]) for each in model.outputs}
    role = next((each["name"] for each in model.outputs if each.get("role") == "scored"), None)
    known = role if task.name == DEFAULT else model.output  # the upload gives roles as the default task would
    targets = TargetKind(dataset.classes, tuple(dataset.target_shape))
    scored = task.check(shapes, known, targets, model.name)
    kept = [name for name in shapes if name != scored]
    if known or not kept:
        return []
    return [f"output {scored} is scored: it alone fits {targets}; kept unchanged: {', '.join(kept)}"]


def _image_shape(model: Model) -> Sequence[int]:
    """Shape (C, H, W) of the images that the model takes."""
    if any(each["layout"] == "NHWC" for each in model.inputs):
        height, width, channels = model.input_shape
        return (channels, height, width)
    return model.input_shape[-3:]


def _check_sparse(strategies: Sequence[str], methods: Sequence[str]) -> None:
    """Raise InvalidInput if a strategy searches for a sparsity and no method has one."""
    if any(catalogue.methods()[name].sparse for name in methods):
        return
    sparse = ", ".join(name for name, family in catalogue.methods().items() if family.sparse)
    for index, name in enumerate(strategies):
        if catalogue.strategies()[name].needs_sparsity:
            wanted = (
                f"searches for one sparsity of the network: add one of {sparse} to the methods ({', '.join(methods)})"
            )
            raise InvalidInput(f"strategies.{index}", name, wanted)


def _check_lowered(metric: str, deciding: str, methods: Sequence[str]) -> None:
    """Raise InvalidInput if the objective is a metric that no method of the job lowers."""
    if metric == deciding or _lowered(metric, methods):
        return
    known = catalogue.methods()
    do = ", ".join(name for name in known if _lowered(metric, [name]))
    raise InvalidInput(
        "objective.metric", metric, f"none of the methods lowers it ({', '.join(methods)}); these do: {do}"
    )


def _lowered(metric: str, methods: Sequence[str]) -> bool:
    from search.metrics import METRICS

    lowered_by = METRICS[metric].lowered_by
    return any(name in lowered_by or metric in catalogue.methods()[name].lowers for name in methods)


def _odd(body: JobCreate, task: Task, methods: Sequence[str]) -> list[str]:
    """Return warnings about requests that are valid but probably not intended."""
    from search.metrics import METRICS

    found = []
    if body.targets and not _lowered("latency_ms", methods):
        found.append(f"targets: no method of the job makes a network faster ({', '.join(methods)})")
    if body.budget.evaluations < len(body.strategies):
        found.append(
            f"budget.evaluations: {len(body.strategies)} strategies share {body.budget.evaluations}, so some get none"
        )
    limited = any(value is not None for value in body.limits.values())
    if body.objective.metric in (None, task.metric) and not body.targets and not limited:
        heading = METRICS[task.metric].heading
        found.append(f"no target, no limit, and {heading} as the objective: nothing asks for a smaller network")
    return found


def _all_random(strategies: Sequence[Mapping[str, Any]], evaluations: int) -> Iterator[str]:
    """Yield a warning for each strategy whose random start-up phase is as long as the whole budget.

    In a race, results of all strategies count.
    """
    for index, item in enumerate(strategies):
        family = catalogue.strategies()[item["name"]]
        startup = family.startup(family.settings(**item["settings"]))
        if startup >= evaluations:
            yield (
                f"strategies.{index}: {family.name} needs {startup} evaluations before it models anything; with a "
                f"budget of {evaluations} it is random search"
            )


def _check_prunable(model: Model, methods: list[dict[str, Any]]) -> None:
    if [item["name"] for item in methods] != ["filter_prune"] or any(g["prunable"] for g in model.groups):
        return
    reasons = "; ".join(sorted({str(group["reason"]) for group in model.groups})) or "it has no groups"
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
            text = f"device {device.name} is {state}: the job waits for it"
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


def _pairs(given: list[NamedBody]) -> list[tuple[str, Mapping[str, object]]]:
    return [(item.name, item.settings) for item in given]
