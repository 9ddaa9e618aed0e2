"""Refuse requests with a query parameter or a body that their route does not read.

Otherwise a misspelt filter would list everything, and a retry "with another budget" would run with the old budget.
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
    """Refuse unknown parts of a request; a dependency of every route.

    Raises:
        RequestValidationError: the request has a part that its route does not read.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or not request.url.path.startswith("/api/"):
        return
    known = set(_query_parameters(route.dependant))
    unknown = {name: value for name, value in request.query_params.items() if name not in known}
    _refuse("query", unknown, f"unknown query parameter; this route accepts {', '.join(sorted(known)) or 'none'}")
    # A route with the request as a parameter reads the body itself.
    if request.method != "GET" and route.body_field is None and route.dependant.request_param_name is None:
        _refuse("body", _said(await request.body()), NO_BODY)


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_parameters(inner)


def _said(body: bytes) -> Mapping[str, object]:
    """Return the keys and values of a body; empty for null and {}, which some clients send with every POST."""
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
