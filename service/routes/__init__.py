"""Routes: one file per resource, each with a `router`. To add a resource, add a file."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter

from search.discovery import modules


def routers() -> Iterator[APIRouter]:
    """Yield the `router` of every file in this folder and its subfolders, by file name."""
    for module in modules(__name__):
        if hasattr(module, "__path__"):
            continue
        if not isinstance(getattr(module, "router", None), APIRouter):
            raise TypeError(f"{module.__name__}: `router` must be an APIRouter")
        yield module.router
