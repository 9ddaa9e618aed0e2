"""The dashboard: one folder a page, discovered. Rows are in the HTML before any script; scripts keep them live.

A page offers `PAGE`; its template is `page.html` beside it, its script, where it has one, `page.js`.
"""

from __future__ import annotations

import importlib
import pkgutil

from fastapi import FastAPI
from starlette.responses import RedirectResponse

from service.pages.assets import router as assets
from service.pages.page import Page

__all__ = ["Page", "install", "pages"]


def pages() -> tuple[Page, ...]:
    """Every page, by its place in the navigation."""
    modules = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__) if m.ispkg]
    return tuple(sorted((m.PAGE for m in modules if hasattr(m, "PAGE")), key=lambda page: (page.order, page.name)))


def install(app: FastAPI) -> None:
    """Add the pages and their assets to the application."""
    app.include_router(assets)
    app.add_api_route("/", lambda: RedirectResponse("/jobs"), include_in_schema=False)
    for page in pages():
        app.include_router(page.router(pages))
