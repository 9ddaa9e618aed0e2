"""Health: alive, ready, and figures for Prometheus. Open to everybody; tells counts, no names."""

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
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """What a client can count on now. 200 whenever `store` and `writes` are `ok`, even while the executor is starting.

    `writes`: whether the data folder takes what is written to it.
    """

    store: Literal["ok", "outdated", "down"]
    writes: data_folder.Writes
    executor: conductors.Executor
    conductors: int


@router.get("/healthz")
async def alive() -> Health:
    """Whether this process answers."""
    return Health()


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
def ready(store: StoreDep, settings: SettingsDep) -> Response:
    """Whether the store answers at the newest schema, the data folder takes writes, and who is there to run jobs."""
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
    """Figures of the whole installation, read from the store: the same from every server."""
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
