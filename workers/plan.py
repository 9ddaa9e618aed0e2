"""JobPlan: a job with all its settings resolved. A run may keep it on disk as plain JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias, get_args

from compress.tasks import DEFAULT
from compress.training.recipe import MOST_ATTENTION
from search.metric import Metric
from search.metrics import METRICS, latency_metric
from workers.errors import InvalidInput

Statistic: TypeAlias = Literal["quiet", "p50", "p95"]
Augment: TypeAlias = Literal["none", "crop", "crop_flip", "auto"]
Goal: TypeAlias = Literal["min", "max"]


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InvalidInput(name, value, "must be a finite number above 0")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidInput(name, value, f"must be at least {least}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidInput(name, value, f"must be one of {', '.join(allowed)}")


@dataclass(frozen=True)
class ModelInput:
    """The uploaded network: a blob, and its preprocessing (compress.data.dataset.Preprocessing as JSON).

    `output` is the output to score, if the user named one; else the output is chosen by the number of classes in the
    data.
    """

    sha256: str
    name: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    output: str | None = None


@dataclass(frozen=True)
class DatasetInput:
    """The uploaded data: a blob, read by compress.data.dataset.load_dataset; `file_name` gives its format."""

    sha256: str
    name: str
    file_name: str
    layout: str | None = None
    classes: int | None = None


@dataclass(frozen=True)
class Target:
    """One device and its limit, which is either in milliseconds or a ratio to the original's measured latency."""

    device_id: str
    device_name: str
    max_latency_ms: float | None = None
    max_latency_ratio: float | None = None
    statistic: Statistic = "quiet"

    def __post_init__(self) -> None:
        _one_of("statistic", self.statistic, get_args(Statistic))
        if (self.max_latency_ms is None) == (self.max_latency_ratio is None):
            raise InvalidInput("targets", self.device_name, "needs exactly one of max_latency_ms and max_latency_ratio")
        limit = self.max_latency_ms if self.max_latency_ms is not None else self.max_latency_ratio
        assert limit is not None
        _positive("max_latency_ms" if self.max_latency_ms is not None else "max_latency_ratio", limit)


@dataclass(frozen=True)
class Named:
    """A strategy or a method with its settings, which are checked when the strategy or method is made."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """Limits of a job: the numbers of F2 evaluations, of wall seconds of search and training, and of finalists to
    train.
    """

    evaluations: int = 60
    wall_s: float = 900.0
    finalists: int = 3

    def __post_init__(self) -> None:
        _at_least("budget.evaluations", self.evaluations, 1)
        _positive("budget.wall_s", self.wall_s)
        _at_least("budget.finalists", self.finalists, 1)


@dataclass(frozen=True)
class Training:
    """The recipe for the finalists and the control alike."""

    epochs: int = 5
    augment: Augment = "auto"
    attention: float = 0.0

    def __post_init__(self) -> None:
        _at_least("training.epochs", self.epochs, 0)
        if not 0.0 <= self.attention <= MOST_ATTENTION:
            raise InvalidInput("training.attention", self.attention, f"must be between 0 and {MOST_ATTENTION:g}")
        _one_of("training.augment", self.augment, get_args(Augment))


@dataclass(frozen=True)
class Effort:
    """How much a run measures and evaluates. The product uses the defaults; tests use lower values.

    The numbers of images are explained in design section 4 (F2). `calibration_networks` and `rows` limit the requests
    to a device; `candidate_s` is the deadline of one evaluation, and `device_wait_s` the deadline of one fill.
    """

    renormalise_images: int = 1024
    accuracy_images: int = 2000
    calibration_networks: int = 24
    rows: int = 2000
    processes: int = 0
    candidate_s: float = 300.0
    device_wait_s: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("renormalise_images", "accuracy_images", "rows"):
            _at_least(f"effort.{name}", getattr(self, name), 1)
        _at_least("effort.calibration_networks", self.calibration_networks, 2)
        _at_least("effort.processes", self.processes, 0)
        _positive("effort.candidate_s", self.candidate_s)
        _positive("effort.device_wait_s", self.device_wait_s)


@dataclass(frozen=True)
class JobPlan:
    """Everything that a run of a job depends on.

    `task` is the purpose of the network (compress.tasks); `metric` is its mean score, which ranks and decides. `limits`
    are the contract's max_/min_<metric>, max_<metric>_drop and max_<metric>_ratio; None means no limit.
    """

    job_id: str
    name: str
    model: ModelInput
    dataset: DatasetInput
    methods: tuple[Named, ...]
    strategies: tuple[Named, ...]
    targets: tuple[Target, ...] = ()
    limits: Mapping[str, float | None] = field(default_factory=dict)
    metric: str = "accuracy"
    objective_metric: str = "accuracy"
    objective_goal: Goal = "max"
    budget: Budget = field(default_factory=Budget)
    training: Training = field(default_factory=Training)
    effort: Effort = field(default_factory=Effort)
    seed: int = 0
    force: bool = False
    task: str = DEFAULT

    def __post_init__(self) -> None:
        _one_of("metric", self.metric, tuple(METRICS))
        _one_of("objective.goal", self.objective_goal, get_args(Goal))
        for name in ("methods", "strategies"):
            named: tuple[Named, ...] = getattr(self, name)
            if not named:
                raise InvalidInput(name, [], "needs at least one item")
            if len({item.name for item in named}) != len(named):
                raise InvalidInput(name, [item.name for item in named], "an item is named twice")
        if self.objective_metric == "latency_ms" and not self.targets:
            raise InvalidInput("objective.metric", self.objective_metric, "needs a target to be measured on")
        devices = [target.device_id for target in self.targets]
        if len(set(devices)) != len(devices):
            raise InvalidInput("targets", devices, "a device is named twice")

    @property
    def metric_row(self) -> Metric:
        """The name and format of the mean score."""
        return METRICS[self.metric]

    @property
    def objective_key(self) -> str:
        """The objective's key in evaluations; for latency, the key of the first target's latency."""
        if self.objective_metric != "latency_ms":
            return self.objective_metric
        return latency_metric(self.targets[0].device_id)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values only; `from_json` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the output of `to_json`.

        Raises:
            InvalidInput: a key is unknown, or a value is invalid.
        """
        parts: dict[str, Any] = dict(data)
        for name, part in _PARTS.items():
            if name in parts:
                parts[name] = _build(part, name, parts[name])
        for name, part in _LISTS.items():
            if name in parts:
                parts[name] = tuple(_build(part, name, item) for item in parts[name])
        plan: Self = _build(cls, "plan", parts)
        return plan


_PARTS: Mapping[str, type[Any]] = {
    "model": ModelInput,
    "dataset": DatasetInput,
    "budget": Budget,
    "training": Training,
    "effort": Effort,
}
_LISTS: Mapping[str, type[Any]] = {"methods": Named, "strategies": Named, "targets": Target}


def _build(cls: type[Any], name: str, values: Mapping[str, Any]) -> Any:
    known = {item.name for item in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InvalidInput(f"{name}.{unknown[0]}", values[unknown[0]], f"unknown key; known: {sorted(known)}")
    try:
        return cls(**values)
    except TypeError as error:
        raise InvalidInput(name, sorted(values), str(error)) from error
