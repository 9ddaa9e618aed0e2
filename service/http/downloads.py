"""Responses with stored files, always as downloads, whole or in ranges (RFC 9110, section 14)."""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from service.files.blobs import Blobs
from service.http.problem_details import problem

REVALIDATED = "private, no-cache"
# A type that no browser renders: users' files must not run on the server's origin.
BINARY = "application/octet-stream"
MAX_RANGES = 100
_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})?|-(\d{1,18})")


class _Download(FileResponse):
    """Response with a whole file or ranges of it. An invalid Range is ignored; a Range beyond the file's end gets a
    416.
    """

    def __init__(self, size_bytes: int, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]  # arguments of FileResponse
        self._size_bytes = size_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._asked(scope)
        if asked == []:
            says = f"no range of {Headers(scope=scope)['range']!r:.100} lies within the {self._size_bytes} bytes"
            answer = problem(416, "range", "Range not satisfiable", says)
            answer.headers["Content-Range"] = f"bytes */{self._size_bytes}"
            await answer(scope, receive, send)
            return
        headers = MutableHeaders(raw=list(scope["headers"]))
        del headers["range"]
        if asked is not None:
            headers["range"] = f"bytes={','.join(asked)}"
        await super().__call__({**scope, "headers": headers.raw}, receive, send)

    def _asked(self, scope: Scope) -> list[str] | None:
        """Return the requested ranges that overlap the file; None if the whole file is the answer."""
        headers = Headers(scope=scope)
        if scope["method"] != "GET" or headers.get("if-range", self.headers["etag"]) != self.headers["etag"]:
            return None
        unit, _, listed = headers.get("range", "").partition("=")
        matches = [_RANGE.fullmatch(part.strip()) for part in listed.split(",")]
        found = [match for match in matches if match is not None]
        whole = unit.strip().lower() != "bytes" or len(found) != len(matches) or len(matches) > MAX_RANGES
        if whole or any(match[2] and int(match[1]) > int(match[2]) for match in found):
            return None
        return [match[0] for match in found if (int(match[1]) < self._size_bytes if match[1] else int(match[3]) > 0)]


def file_answer(
    blobs: Blobs,
    sha256: str,
    file_name: str,
    if_none_match: str | None,
    *,
    cache: str = REVALIDATED,
    media_type: str = BINARY,
) -> Response:
    """Return a stored content as a download named `file_name`. Its sha256 is the ETag."""
    headers = {"ETag": f'"{sha256}"', "Cache-Control": cache}
    if if_none_match is not None and sha256 in if_none_match:
        return Response(status_code=304, headers=headers)
    path = blobs.path(sha256)
    return _Download(path.stat().st_size, path, headers=headers, media_type=media_type, filename=file_name)
