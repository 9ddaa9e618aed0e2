"""Rows: the committed results of a benchmark that resumes, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stamp import stamp


@dataclass(frozen=True)
class Rows:
    """A file of rows. A row is known by its kind and the keys that name it; the newest row counts."""

    path: Path

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.path.exists():
            yield from map(json.loads, self.path.read_text().splitlines())

    def find(self, kind: str, **named: object) -> dict[str, Any] | None:
        """Return the newest row of this kind with these keys, or None."""
        wanted = {"kind": kind, **named}
        found = [row for row in self if wanted.items() <= {key: row[key] for key in wanted if key in row}.items()]
        return found[-1] if found else None

    def add(self, kind: str, **fields: object) -> dict[str, Any]:
        """Append a row with the time and the load of the machine; return it."""
        now = stamp()
        row = {"kind": kind, **fields, "at": now["at"], "load": now["load"]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as out:
            out.write(json.dumps(row, allow_nan=False) + "\n")
        return row
