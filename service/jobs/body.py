"""The schema of a submitted job's body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from compress.tasks import DEFAULT
from compress.training.recipe import MOST_ATTENTION
from service.http.bodies import Body, Name
from workers.plan import Augment, Statistic

Ref: TypeAlias = Annotated[str, Field(min_length=1, max_length=80)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
MAX_SEED = 2**31 - 1


class ObjectiveBody(Body):
    """The metric to optimise under the limits. If it is omitted, the metric of the job's task is optimised. Other
    metrics need strategies that train whole candidates. `goal` must be the goal that the catalogue gives for the
    metric.
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
    """A strategy or a method with its settings; a name alone means the default settings."""

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
    """`evaluations` counts F2 evaluations; `wall_s` is the time for search and training. If `wall_s` is too short for
    all epochs of the control and one finalist, the control and all finalists train for the same smaller number of
    epochs.
    """

    evaluations: int = Field(60, ge=1, le=1_000_000)
    wall_s: float = Field(900.0, gt=0, le=30 * 86400.0)
    finalists: int = Field(3, ge=1, le=100)


class TrainingBody(Body):
    """The training recipe, the same for finalists and control. `attention` is the weight of attention transfer from the
    original; 0 is off.
    """

    epochs: int = Field(5, ge=0, le=10_000)
    augment: Augment = "auto"
    attention: float = Field(0.0, ge=0, le=MOST_ATTENTION)


class JobCreate(Body):
    """A job as the contract defines it. `metric` must be the metric of the job's task."""

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


def pairs(given: list[NamedBody]) -> list[tuple[str, Mapping[str, object]]]:
    return [(item.name, item.settings) for item in given]
