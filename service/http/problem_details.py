"""Problem documents (RFC 9457): the one format of all error responses."""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from service.errors import (
    INTERNAL,
    INVALID,
    MAX_SHOWN,
    REFUSALS,
    STATUS,
    FieldError,
    ServiceError,
    Unavailable,
    got,
    meaning,
)
from service.files.data_folder import NoSpace, is_full

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """One entry of `errors`."""

    field: str
    message: str
    value: Any = None


class Problem(BaseModel):
    """Body of every response with status 400 or above."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem] = []


def shown(value: object) -> object:
    """Convert `value` for JSON: finite, and shortened so that no long secret is sent back in full."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    text = _encodable(value if isinstance(value, str) else repr(value))
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _encodable(text: str) -> str:
    """Escape lone surrogates, which JSON allows as escapes but UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    errors: Iterable[FieldError] = (),
    retry_after_s: float | None = None,
) -> JSONResponse:
    """Return a response with a problem document."""
    body = Problem(
        type=f"urn:netlathe:problem:{code}",
        title=title,
        status=status,
        detail=_encodable(detail),
        code=code,
        errors=[
            FieldProblem(field=_encodable(e.field), message=_encodable(e.message), value=shown(e.value)) for e in errors
        ],
    )
    headers = {} if retry_after_s is None else {"Retry-After": str(math.ceil(retry_after_s))}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body.model_dump(), status, headers, MEDIA_TYPE)


def of_error(error: Exception) -> JSONResponse:
    """Return the problem document of an exception in the table of service.errors."""
    row = meaning(error)
    if isinstance(error, ServiceError):
        code = error.code or row.code
        return problem(row.status, code, row.title, error.detail, error.errors, error.retry_after_s)
    found = [FieldError(error.field, error.message, error.value)] if isinstance(error, REFUSALS) else []
    return problem(row.status, row.code, row.title, str(error), found)


def of_validation(error: RequestValidationError) -> JSONResponse:
    """Return a problem document with one entry per fault that pydantic found. Names leave out `body`, `query` and
    `path`.
    """
    items = error.errors()
    found = [_field_error(item) for item in items]
    told = (f"{fault.field}: {fault.message}{_got(item, fault)}" for item, fault in zip(items, found, strict=True))
    detail = "; ".join(told)
    return problem(INVALID.status, INVALID.code, INVALID.title, detail[:2000], found)


def _got(item: Mapping[str, Any], fault: FieldError) -> str:
    null = item["type"] != "missing" and item.get("input") is None
    return " (got null)" if null else got(_seen(fault.value))


def _field_error(item: dict[str, Any]) -> FieldError:
    location = [str(part) for part in item["loc"]]
    if location and location[0] in ("body", "query", "path", "header", "cookie"):
        location = location[1:]
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return FieldError(".".join(location), "unknown key", item.get("input"))
    cause = item.get("ctx", {}).get("error")
    if field := getattr(cause, "field", None):  # an error of Netlathe's own, which names the field and the value
        message, value = getattr(cause, "message", str(cause)), getattr(cause, "value", None)
        return FieldError(".".join([*location, field]), message, value)
    return FieldError(".".join(location) or "body", _wanted(item), _seen(item.get("input")))


_WANTED: Mapping[str, str] = {
    "missing": "is missing",
    "int": "must be a whole number",
    "float": "must be a number",
    "finite_number": "must be a finite number",
    "bool": "must be true or false",
    "string": "must be text",
    "list": "must be a list",
    "tuple": "must be a list",
    "dict": "must be an object",
    "mapping": "must be an object",
    "model_attributes": "must be an object",
    "model": "must be an object",
    "datetime": "must be a date and time such as 2030-01-31T12:00:00Z",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "needs at least {min_length} items",
    "too_long": "may have at most {max_length} items",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "may have at most {max_length} characters",
}
"""Netlathe's message for each error type of the validation library, or for a type name that the error type contains."""


def _wanted(item: Mapping[str, Any]) -> str:
    kind, context = str(item["type"]), item.get("ctx", {})
    if kind == "value_error":  # raised by a check of Netlathe
        return str(context["error"])
    family = re.sub(r"_(type|parsing|from_float|from_date_parsing|object_invalid|parsing_size)$", "", kind)
    text = _WANTED.get(kind) or _WANTED.get(family)
    return text.format(**context) if text else str(item["msg"])


def _seen(value: object) -> object:
    """Return the value to show; None for an object, because it would not make the fault clear and may hold a secret."""
    return None if isinstance(value, Mapping) else value


class Refused(HTTPException):
    """Carries a ServiceError out of `receive` while a body is being read; the framework turns other exceptions into a
    400.
    """

    def __init__(self, error: ServiceError) -> None:
        super().__init__(meaning(error).status, error.detail)
        self.error = error


def of_http(error: HTTPException) -> JSONResponse:
    """Return the problem document for one of the framework's own refusals: an unknown route or method, or an unreadable
    body.
    """
    if isinstance(error, Refused):
        return of_error(error.error)
    titles = {400: "Bad request", 404: "Not found", 405: "Method not allowed"}
    codes = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}
    status = error.status_code
    response = problem(status, codes.get(status, f"http_{status}"), titles.get(status, "Error"), str(error.detail))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


def of_database(error: OperationalError) -> JSONResponse:
    """Return the problem document for a locked, absent or full database: nothing was written, so the client may
    retry.
    """
    if is_full(error.orig):
        log.warning("the store is full")
        return of_error(NoSpace())
    log.warning("the store did not answer: %s", type(error.orig).__name__)
    return of_error(Unavailable("the store does not answer at the moment; nothing was written", retry_after_s=2))


def of_system(request: Request, error: OSError) -> JSONResponse:
    """Return the problem document for a system error: `NoSpace` for a full disk, an internal error otherwise."""
    if not is_full(error):
        return internal(request, error)
    log.warning("no space left at %s %s: %s", request.method, request.scope["path"], error)
    return of_error(NoSpace())


def internal(request: Request, error: Exception) -> JSONResponse:
    """Return an internal error. The client sees only an id, which also marks the details in the log."""
    number = secrets.token_hex(6)
    log.error("internal error %s at %s %s", number, request.method, request.scope["path"], exc_info=error)
    return problem(
        INTERNAL.status,
        INTERNAL.code,
        INTERNAL.title,
        f"a fault of Netlathe; the server's log has it as error id {number}",
    )


Handler = Callable[[Request, Exception], Response | Awaitable[Response]]


def install(app: FastAPI) -> None:
    """Install handlers for all kinds of failures in `app`."""

    def handles(make: Callable[[Any], JSONResponse]) -> Handler:
        async def handler(_request: Request, error: Exception) -> Response:
            return make(error)

        return handler

    async def system(request: Request, error: Exception) -> Response:
        return of_system(request, cast(OSError, error))

    for kind in STATUS:
        app.add_exception_handler(kind, handles(of_error))
    app.add_exception_handler(RequestValidationError, handles(of_validation))
    app.add_exception_handler(HTTPException, handles(of_http))
    app.add_exception_handler(OperationalError, handles(of_database))
    app.add_exception_handler(OSError, system)
    app.add_exception_handler(Exception, cast(Handler, internal))


Responses = dict[int | str, dict[str, Any]]


def documented(*statuses: Literal[400, 401, 403, 404, 409, 410, 413, 416, 422, 426, 429]) -> Responses:
    """Return the `responses=` of a route: the problems it may answer with, for the OpenAPI document."""
    return {status: {"model": Problem, "content": {MEDIA_TYPE: {}}} for status in statuses}
