"""JsonRoute: a route that reports where a JSON body is faulty, and refuses a key that is given twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from service.errors import InvalidInput
from service.http.problem_details import Refused


class JsonRoute(APIRoute):
    """Route that reports faults of the JSON text by line, column or key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the framework's handler, called with a request that reads its body as `_JsonRequest` does."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handler


class _JsonRequest(Request):
    async def json(self) -> Any:
        """Parse the body.

        Raises:
            Refused: the body is not JSON, or an object in it has the same key twice.
        """
        body = await self.body()
        try:
            return json.loads(body, object_pairs_hook=_once)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            seen = error.doc[max(error.pos - 20, 0) : error.pos + 20]
            problem = InvalidInput("body", seen, f"is not JSON: {error.msg} at {where}")
        except UnicodeDecodeError as error:
            problem = InvalidInput("body", body[error.start : error.start + 4], "is not JSON: the text is not UTF-8")
        except RecursionError:
            problem = InvalidInput("body", None, "is nested too deeply")
        except _Twice as error:
            problem = InvalidInput(error.key, error.value, "the key occurs twice in one object")
        raise Refused(problem)


class _Twice(ValueError):
    def __init__(self, key: str, value: object) -> None:
        super().__init__(key)
        self.key, self.value = key, value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key, value)
        found[key] = value
    return found
