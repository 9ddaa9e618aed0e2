"""The catalogue: everything that a job may name, with the details that a form or a client needs."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import select

from service.depends import StoreDep, UserDep
from service.http.problem_details import documented
from service.jobs import catalogue
from service.store.devices.devices import Device
from service.store.engine import Store

router = APIRouter(prefix="/api/v1/catalogue", tags=["catalogue"])


class FamilyPublic(BaseModel):
    """A strategy or a method. `settings` is a JSON Schema; `source` is the paper."""

    name: str
    summary: str
    source: str
    settings: dict[str, Any]


class StrategyPublic(FamilyPublic):
    """A strategy. `baseline` is true if other strategies should beat it."""

    baseline: bool


class TaskPublic(BaseModel):
    """A task for networks. `metric` is the mean score that ranks the candidates of its jobs and decides their
    verdicts.
    """

    name: str
    summary: str
    metric: str


class MetricPublic(BaseModel):
    """A named number. It is shown as `value * factor` in `unit`, with a Python format spec."""

    name: str
    unit: str
    goal: Literal["min", "max"]
    label: str
    format: str
    factor: float
    per_device: bool


class RuntimePublic(BaseModel):
    """A runtime that an agent reported."""

    name: str
    versions: list[str]


class Catalogue(BaseModel):
    """Everything that a job may name."""

    strategies: list[StrategyPublic]
    methods: list[FamilyPublic]
    tasks: list[TaskPublic]
    metrics: list[MetricPublic]
    limits: list[str]
    runtimes: list[RuntimePublic]


@router.get("", responses=documented(401, 403))
def read_catalogue(store: StoreDep, _user: UserDep) -> Catalogue:
    """Return the strategies, methods, tasks and metrics of this installation, and the runtimes of its agents."""
    from search.metrics import LIMITS

    return Catalogue(
        strategies=[
            StrategyPublic(
                name=family.name,
                summary=family.summary,
                source=family.source,
                settings=dict(catalogue.schema(family.settings)),
                baseline=family.baseline,
            )
            for family in catalogue.strategies().values()
        ],
        methods=[
            FamilyPublic(
                name=family.name,
                summary=family.summary,
                source=family.source,
                settings=dict(catalogue.schema(family.settings)),
            )
            for family in catalogue.methods().values()
        ],
        tasks=[TaskPublic.model_validate(task, from_attributes=True) for task in catalogue.tasks().values()],
        metrics=[MetricPublic.model_validate(metric, from_attributes=True) for metric in catalogue.metrics()],
        limits=sorted(name for name, limit in LIMITS.items() if not limit.caps_a_score),
        runtimes=_runtimes(store),
    )


def _runtimes(store: Store) -> list[RuntimePublic]:
    reported: dict[str, list[str]] = {}
    with store.read() as tx:
        rows = select(Device.runtime, Device.runtime_version).distinct()
        for name, version in tx.session.execute(rows.order_by(Device.runtime, Device.runtime_version)):
            reported.setdefault(name, []).append(version)
    return [RuntimePublic(name=name, versions=versions) for name, versions in reported.items()]
