"""Routes: one file a resource, each offering `router`. Adding a resource is adding a file."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter

from search.discovery import modules


def routers() -> Iterator[APIRouter]:
    """The `router` of every file of this folder and of the folders in it, by file name."""
    for module in modules(__name__):
        if hasattr(module, "__path__"):
            continue
        if not isinstance(getattr(module, "router", None), APIRouter):
            raise TypeError(f"{module.__name__}: `router` must be an APIRouter")
        yield module.router
