"""Security: middleware that every request passes before it reaches its route. The outermost layer is listed first.

Headers      adds to every answer the policies that a browser should enforce
HostGuard    accepts only loopback names on loopback, so that a foreign page cannot rebind its DNS to the server
OriginGuard  accepts writes that rely on the cookie only from this server's own pages
BodyLimit    counts the bytes of a body as it arrives, whatever Content-Length says
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers as RequestHeaders
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Forbidden, PayloadTooLarge
from service.http.problem_details import Refused, of_error, problem
from service.settings import MIB, Settings

COOKIE = "netlathe_session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
MULTIPART_MARGIN_BYTES = 1 * MIB
"""Allowance for boundaries and form fields around an uploaded file."""

POLICIES: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            # plotly writes inline styles; scripts are allowed from this server only
            "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
            "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
)


class Headers:
    """Adds POLICIES to all answers, and `Cache-Control: no-store` to API answers without a Cache-Control."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policies(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in POLICIES.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_policies if scope["type"] == "http" else send)


class HostGuard:
    """Answers 400 to an unknown Host. If the server is not on loopback, Host is checked only if a list is
    configured.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        allowed = frozenset(name.lower() for name in settings.allowed_hosts)
        self.allowed = allowed | LOOPBACK_NAMES if settings.loopback or allowed else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.allowed is not None:
            host = RequestHeaders(scope=scope).get("host", "")
            if _without_port(host) not in self.allowed:
                answer = problem(400, "host", "Unknown host", f"this server does not answer to host {host!r:.100}")
                return await answer(scope, receive, send)
        await self.app(scope, receive, send)


class OriginGuard:
    """Answers 403 to a write from a foreign page, and to a write that has the session cookie but no Origin."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            headers = RequestHeaders(scope=scope)
            if "authorization" not in headers and not _from_here(scope, headers):
                error = Forbidden("a write from a browser must come from this server's own pages", code="origin")
                return await of_error(error)(scope, receive, send)
        await self.app(scope, receive, send)


def _from_here(scope: Scope, headers: RequestHeaders) -> bool:
    origin = headers.get("origin")
    if origin is None:
        return f"{COOKIE}=" not in headers.get("cookie", "")
    return origin.lower() == f"{scope['scheme']}://{headers.get('host', '')}".lower()


def _without_port(host: str) -> str:
    return re.sub(r":\d+\Z", "", host.lower())


class BodyLimit:
    """Limits the size of bodies: one small limit for JSON, and a limit by path for uploads."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.json_bytes = settings.max_json_bytes
        self.uploads = (
            (re.compile(r"/api/v1/models/?"), settings.max_model_bytes + MULTIPART_MARGIN_BYTES),
            (re.compile(r"/api/v1/datasets/?"), settings.max_dataset_bytes + MULTIPART_MARGIN_BYTES),
            (re.compile(r"/api/v1/devices/[^/]+/table/?"), settings.max_table_bytes),
            (re.compile(r"/api/v1/leases/[^/]+/files/[^/]+"), settings.max_model_bytes + MULTIPART_MARGIN_BYTES),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        limit = self._limit(scope["path"])
        refused = PayloadTooLarge(f"the body is over the limit of {limit} bytes")
        announced = RequestHeaders(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced) > limit:
            return await of_error(refused)(scope, receive, send)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise Refused(refused)
            return message

        await self.app(scope, counted, send)

    def _limit(self, path: str) -> int:
        for pattern, limit in self.uploads:
            if pattern.fullmatch(path):
                return limit
        return self.json_bytes
