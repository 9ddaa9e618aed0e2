"""Uploads: stream a multipart body into the blob store while it arrives, without holding the file in memory.

The framework's form parser would read the whole body before authentication. This parser reads the body after
authentication.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from service.errors import InvalidInput
from service.files.blobs import Blobs, StoredBlob
from service.processes.daemon_pool import DaemonPool

MAX_FIELDS_BYTES = 64 * 1024
IDLE_S = 60.0
"""Time after which an upload without new data is aborted."""
FILE = "file"

# A separate pool: slow clients must not use up the threads that answer other requests.
_THREADS = DaemonPool(8, "upload")


@dataclass(frozen=True)
class Upload:
    """A received upload. `file_name` is the name that the client gave, without folders."""

    blob: StoredBlob
    file_name: str
    fields: Mapping[str, str]


def form_schema(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that receives a file and these fields (name -> JSON Schema)."""
    properties = {FILE: {"type": "string", "contentMediaType": "application/octet-stream"}, **fields}
    required = [FILE, *(name for name in fields if name == "name")]
    schema = {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def receive(request: Request, blobs: Blobs, limit_bytes: int, allowed: Collection[str]) -> Upload:
    """Receive one file and some fields.

    Args:
        limit_bytes: largest size of the file.
        allowed: names of the fields.

    Raises:
        InvalidInput: the body is not multipart or incomplete, a field is not allowed, or there is not exactly one file.
        PayloadTooLarge: the file is over its limit; nothing is stored.
    """
    boundary = _boundary(request.headers.get("content-type", ""))
    loop = asyncio.get_running_loop()
    stream = request.stream()

    def pull() -> bytes:
        arriving = asyncio.run_coroutine_threadsafe(_next(stream), loop)
        return arriving.result(2 * IDLE_S)  # the inner time-out fires first, unless the loop has ended

    form = _Form(boundary, allowed, pull)
    return await asyncio.wrap_future(_THREADS.submit(_store, form, blobs, limit_bytes))


async def _next(stream: AsyncIterator[bytes]) -> bytes:
    try:
        async with asyncio.timeout(IDLE_S):
            async for chunk in stream:
                if chunk:
                    return chunk
    except TimeoutError as error:
        raise InvalidInput(FILE, None, f"nothing arrived for {IDLE_S:g} s", code="upload_idle") from error
    except ClientDisconnect as error:
        raise InvalidInput(FILE, None, "the upload was interrupted", code="upload_broken") from error
    return b""


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidInput("body", content_type[:200], "must be multipart/form-data with a file")
    return boundary


def _store(form: _Form, blobs: Blobs, limit_bytes: int) -> Upload:
    form.read_until(lambda: form.file_name is not None)
    if form.file_name is None:
        raise InvalidInput(FILE, None, "is missing")
    blob = blobs.put_chunks(form.file_chunks(), limit_bytes)
    form.read_until(lambda: form.ended)
    if not form.ended:
        raise InvalidInput("body", None, "the multipart body ends too early")
    fields = {name: _text(name, value) for name, value in form.fields.items()}
    return Upload(blob, form.file_name, fields)


def _text(name: str, value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(name, None, "must be UTF-8") from error


@dataclass
class _Form:
    """Parser of a body that arrives piece by piece; parsed parts of the file wait in `pieces`."""

    boundary: bytes
    allowed: Collection[str]
    pull: Callable[[], bytes]
    fields: dict[str, bytearray] = field(default_factory=dict)
    file_name: str | None = None
    file_ended: bool = False
    ended: bool = False
    pieces: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._part: str | None = None  # name of the field being read, None for the file
        self._fields_bytes = 0
        self._parser = MultipartParser(
            self.boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def read_until(self, holds: Callable[[], bool]) -> None:
        """Parse incoming data until `holds()` is true or the body ends."""
        while not holds():
            chunk = self.pull()
            if not chunk:
                return
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise InvalidInput("body", None, f"is not a well-formed multipart body: {error}") from error

    def file_chunks(self) -> Iterator[bytes]:
        """Yield the file's bytes as they arrive."""
        while True:
            pieces, self.pieces = self.pieces, []
            yield from pieces
            if self.file_ended and not self.pieces:
                return
            self.read_until(lambda: self.file_ended or bool(self.pieces))
            if not self.file_ended and not self.pieces:
                raise InvalidInput(FILE, None, "the upload was interrupted", code="upload_broken")

    def _on_part_begin(self) -> None:
        self._header, self._disposition = (bytearray(), bytearray()), b""

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")
        if name == FILE:
            if b"filename" not in options or self.file_name is not None:
                raise InvalidInput(FILE, None, "must be one uploaded file")
            self.file_name, self._part = _plain(options[b"filename"]), None
            return
        if name not in self.allowed or name in self.fields:
            message = "is given twice" if name in self.fields else "unknown key"
            raise InvalidInput(name[:80], None, message)
        self._part = name
        self.fields[name] = bytearray()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part is None:
            self.pieces.append(data[start:end])
            return
        self._fields_bytes += end - start
        if self._fields_bytes > MAX_FIELDS_BYTES:
            raise InvalidInput(self._part, None, f"the fields are over {MAX_FIELDS_BYTES} bytes")
        self.fields[self._part] += data[start:end]

    def _on_part_end(self) -> None:
        if self._part is None:
            self.file_ended = True

    def _on_end(self) -> None:
        self.ended = True


def _plain(file_name: bytes) -> str:
    """Return the last part of a path, with only printable characters and at most 200 of them."""
    last = PurePosixPath(file_name.decode(errors="replace").replace("\\", "/")).name
    return "".join(character for character in last if character.isprintable())[-200:] or "unnamed"
