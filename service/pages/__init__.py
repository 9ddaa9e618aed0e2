"""The dashboard. Each page is a folder that is discovered. The HTML shows all rows even without scripts; scripts update
the rows.

A page's module has `PAGE`; `page.html` beside it is its template, and `page.js`, if present, its script.
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
    """Return every page, in the order of the navigation."""
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
    """Answer an unknown address with a page for a browser, and with a problem document for other clients."""
    assert isinstance(error, HTTPException)
    lost = error.status_code == 404 and not request.url.path.startswith("/api/")
    if not (lost and request.method == "GET" and "text/html" in request.headers.get("accept", "")):
        return of_http(error)
    values = {"detail": f"There is no page {request.url.path}.", "user": None, "query": request.query_params}
    nowhere = Page("not_found", request.url.path, lambda *_: {}, open=True)
    html = environment().get_template("not_found.html").render(values | {"pages": pages(), "page": nowhere})
    return HTMLResponse(html, status_code=404)
