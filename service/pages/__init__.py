"""The dashboard: one folder a page, discovered. Rows are in the HTML before any script; scripts keep them live.

A page offers `PAGE`; its template is `page.html` beside it, its script, where it has one, `page.js`.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from search.discovery import modules
from service.http.problem_details import of_http
from service.pages.assets import router as assets
from service.pages.page import Page, environment

__all__ = ["Page", "install", "pages"]


def pages() -> tuple[Page, ...]:
    """Every page, by its place in the navigation."""
    found = [module.PAGE for module in modules(__name__) if isinstance(getattr(module, "PAGE", None), Page)]
    return tuple(sorted(found, key=lambda page: (page.order, page.name)))


def install(app: FastAPI) -> None:
    """Add the pages and their assets to the application."""
    app.include_router(assets)
    app.add_api_route("/", lambda: RedirectResponse("/jobs"), include_in_schema=False)
    for page in pages():
        app.include_router(page.router(pages))
    app.add_exception_handler(HTTPException, _refused)


async def _refused(request: Request, error: Exception) -> Response:
    """A page for a browser that is lost, a problem document for everybody else."""
    assert isinstance(error, HTTPException)
    lost = error.status_code == 404 and not request.url.path.startswith("/api/")
    if not (lost and request.method == "GET" and "text/html" in request.headers.get("accept", "")):
        return of_http(error)
    values = {"detail": f"There is no page {request.url.path}.", "user": None, "query": request.query_params}
    nowhere = Page("not_found", request.url.path, lambda *_: {}, open=True)
    html = environment().get_template("not_found.html").render(values | {"pages": pages(), "page": nowhere})
    return HTMLResponse(html, status_code=404)
