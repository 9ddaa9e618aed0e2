"""Known parts of a request: its route must read every query parameter and any body, or the request is refused.

A misspelt filter would else list everything, and a retry "with another budget" would run the old one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

NO_BODY = "this route takes no body"


async def only_known_parts(request: Request) -> None:
    """Dependency of every route.

    Raises:
        RequestValidationError: the request says something that its route does not read.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or not request.url.path.startswith("/api/"):
        return
    known = set(_query_parameters(route.dependant))
    unknown = {name: value for name, value in request.query_params.items() if name not in known}
    _refuse("query", unknown, f"unknown query parameter; this route knows {', '.join(sorted(known)) or 'none'}")
    # A route that takes the request itself reads the body itself.
    if request.method != "GET" and route.body_field is None and route.dependant.request_param_name is None:
        _refuse("body", _said(await request.body()), NO_BODY)


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_parameters(inner)


def _said(body: bytes) -> Mapping[str, object]:
    """The keys of a body and their values. Empty, null and {} say nothing: clients send {} with every POST."""
    try:
        found = json.loads(body.strip() or b"{}")
    except (ValueError, RecursionError):
        found = body[:80]
    if found is None:
        return {}
    return found if isinstance(found, dict) else {"body": found}


def _refuse(part: str, unknown: Mapping[str, object], message: str) -> None:
    if unknown:
        context = {"error": ValueError(message)}
        raise RequestValidationError(
            [{"type": "value_error", "loc": (part, name), "input": unknown[name], "ctx": context} for name in unknown]
        )
