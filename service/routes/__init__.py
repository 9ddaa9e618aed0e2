"""Routes: one file a resource, each offering `router`. Adding a resource is adding a file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from fastapi import APIRouter


def routers() -> Iterator[APIRouter]:
    """The `router` of every file of this folder, by file name."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name):
        router = importlib.import_module(f"{__name__}.{module.name}").router
        if not isinstance(router, APIRouter):
            raise TypeError(f"service/routes/{module.name}.py: `router` must be an APIRouter")
        yield router
