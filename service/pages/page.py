"""Page: a path, a template and its values. Without a session, the browser is redirected to the sign-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from service.depends import OptionalUserDep, State, StateDep
from service.errors import NotFound
from service.pages import formats
from service.pages.assets import PLOTLY_URL, asset_url

FOLDER = Path(__file__).parent
Fill = Callable[[Request, State], Mapping[str, Any]]


@cache
def environment() -> Environment:
    """Return the environment of all templates: values are escaped, and a misspelt name is an error."""
    found = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(formats.FILTERS)
    found.globals.update(asset=asset_url, plotly=PLOTLY_URL)
    return found


@dataclass(frozen=True)
class Page:
    """One page of the dashboard.

    Attributes:
        name: name of the page's folder.
        path: path of the page's address, with parameters as in FastAPI.
        fill: (request, state) -> values for the page's template. Raises NotFound for an unknown resource.
        label: name of the page in the navigation; "" leaves the page out.
        order: place of the page in the navigation.
        open: True if the page is readable without a session.
    """

    name: str
    path: str
    fill: Fill
    label: str = ""
    order: int = 100
    open: bool = False

    def router(self, pages: Callable[[], tuple[Page, ...]]) -> APIRouter:
        """Return a router with the route of this page."""
        router = APIRouter(include_in_schema=False)

        @router.get(self.path, name=f"page_{self.name}")
        def show(request: Request, state: StateDep, user: OptionalUserDep) -> Response:
            if user is None and not self.open:
                return RedirectResponse(f"/sign-in?next={quote(_here(request))}", status_code=303)
            status, template, values = 200, f"{self.name}/page.html", dict[str, Any]()
            try:
                values |= self.fill(request, state)
            except NotFound as error:
                status, template, values = 404, "not_found.html", {"detail": str(error)}
            values |= {"pages": pages(), "page": self, "user": user, "query": request.query_params}
            return HTMLResponse(environment().get_template(template).render(values), status_code=status)

        return router


def _here(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
