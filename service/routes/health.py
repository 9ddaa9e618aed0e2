"""Health: liveness, readiness and figures for Prometheus. These routes need no token; they show counts but no names."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, Response

from service.depends import SettingsDep, StoreDep
from service.files import data_folder
from service.store import events
from service.store.engine import Store
from service.store.jobs import conductors, jobs
from service.store.migrate import is_newest

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """Status of a process that can answer requests."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """State of the service. The HTTP status is 200 if `store` and `writes` are `ok`, even while the executor is
    starting.

    `writes` is `ok` if the data folder is writable, `full` if it has no space left, and `refused` otherwise.
    """

    store: Literal["ok", "outdated", "down"]
    writes: data_folder.Writes
    executor: conductors.Executor
    conductors: int


@router.get("/healthz")
async def alive() -> Health:
    """Check that this process answers."""
    return Health()


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
def ready(store: StoreDep, settings: SettingsDep) -> Response:
    """Check that the store has the newest schema and the data folder is writable; report the executor of jobs."""
    found = _readiness(store, data_folder.writes(settings.data_dir))
    return JSONResponse(found.model_dump(), 200 if (found.store, found.writes) == ("ok", "ok") else 503)


def _readiness(store: Store, writes: data_folder.Writes) -> Readiness:
    try:
        if not is_newest(store.engine):
            return Readiness(store="outdated", writes=writes, executor="down", conductors=0)
        with store.read() as tx:
            found = conductors.alive(tx)
    except SQLAlchemyError:
        return Readiness(store="down", writes=writes, executor="down", conductors=0)
    return Readiness(store="ok", writes=writes, executor=conductors.best(found), conductors=len(found))


@router.get("/metrics", response_class=Response)
def metrics(store: StoreDep) -> Response:
    """Return figures of the whole installation, read from the store, so that all servers return the same figures."""
    registry = CollectorRegistry()
    in_state = Gauge("netlathe_jobs", "Jobs by state", ["state"], registry=registry)
    waiting = Gauge("netlathe_conductors", "Conductors that are alive", registry=registry)
    number = Gauge("netlathe_events_newest", "Number of the newest event", registry=registry)
    with store.read() as tx:
        for state, count in jobs.counts(tx).items():
            in_state.labels(state).set(count)
        waiting.set(len(conductors.alive(tx)))
        number.set(events.newest(tx))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
