"""The API server as an ASGI application. It keeps no state outside the store and the blobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from service import pages
from service.depends import State
from service.files.blobs import Blobs
from service.files.housekeeping import Housekeeping
from service.http import problem_details
from service.http.event_feed import Feed
from service.http.known_parts import only_known_parts
from service.http.security import BodyLimit, Headers, HostGuard, OriginGuard
from service.routes import routers
from service.settings import Settings
from service.store import Store, make_engine


def create_app(settings: Settings, store: Store | None = None) -> FastAPI:
    """Create the application. Tests pass a `store`; otherwise it is made from the settings' URL."""
    store = store or Store(make_engine(settings.url))
    state = State(settings, store, Blobs(settings.data_dir), Feed(store, settings.event_poll_s))
    app = FastAPI(
        title="Netlathe",
        version=version("netlathe"),
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # the framework's page would load scripts from other sites
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
        dependencies=[Depends(only_known_parts)],
    )
    app.state.netlathe = state
    for router in routers():
        app.include_router(router)
    problem_details.install(app)
    pages.install(app)  # after the problem documents, some of which these routes replace with pages for browsers
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(OriginGuard)
    app.add_middleware(HostGuard, settings=settings)
    app.add_middleware(Headers)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: State = app.state.netlathe
    chores = Housekeeping(state.store, state.blobs, state.settings)
    async with state.feed.running(), anyio.create_task_group() as background:
        background.start_soon(chores.run)
        yield
        background.cancel_scope.cancel()
    state.store.close()


def _operation_id(route: APIRoute) -> str:
    return "_".join([*(str(tag) for tag in route.tags), route.name])
