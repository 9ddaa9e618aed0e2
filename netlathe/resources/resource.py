"""Resource: operations that all kinds of resources share."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from netlathe.connection import Connection
from netlathe.errors import Invalid, Problem, Unreadable, invalid
from netlathe.reading import read
from netlathe.results import Json, Page

T = TypeVar("T")


def default_name(path: Path, *settings: object) -> str:
    """Make a valid name from a file's stem and content, so that files with different contents get different names."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    stem = re.sub(r"[^a-z0-9.-]+", "-", path.stem.lower()).strip("-.") or "file"
    return f"{stem[:50]}-{digest.hexdigest()[:8]}"


class Resource:
    """Operations on one kind of resource."""

    path: str

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _at(self, ref: str, *rest: str) -> str:
        """Return the path of the resource with this id or name. Raises Invalid if the name would give another path,
        as an empty name would (it would give the path of the list).
        """
        kind = self.path.rpartition("/")[2].removesuffix("s")
        if not ref.strip():
            raise invalid(kind, ref, "is empty")
        if ref in (".", "..") or "/" in ref:
            raise invalid(kind, ref, "must be an id or a name, not a path")
        return "/".join((self.path, quote(ref, safe=""), *rest))

    def _page(self, kind: type[T], path: str, **query: Any) -> Page[T]:
        data = self._connection.get(path, query)
        items = data.get("items")
        if not isinstance(items, list):
            raise Unreadable(f"{path} did not answer with a list of items")
        counts = [int(data.get(name, len(items))) for name in ("total", "page", "page_size")]
        return Page(tuple(read(kind, item) for item in items), *counts)

    def _create_from_file(self, kind: type[T], file: str | Path, form: Json) -> T:
        """Upload a file. If the server answers before it has checked the file, wait for the check's result."""
        path = Path(file)
        sent = {name: value for name, value in form.items() if value is not None}
        data = self._connection.request("POST", self.path, form=sent, file=path)
        while data.get("state") == "checking":
            self._connection.sleep(1.0)
            data = self._connection.get(f"{self.path}/{data['id']}")
        if data.get("state") == "refused":
            raise Invalid(
                read(Problem, {"status": 422, "detail": "the server refused the file", **(data.get("problem") or {})})
            )
        return read(kind, data)
