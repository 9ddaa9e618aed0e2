"""Op tables, one file per family. To add an op, add a row; to add a family, add a file with a constant ROWS."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from compress.network import Node
from compress.ops.row import Row
from search.discovery import modules


@cache
def _table() -> Mapping[str, Row]:
    table: dict[str, Row] = {}
    for module in modules(__name__):
        for row in getattr(module, "ROWS", ()):
            table |= dict.fromkeys(row.op_types, row)
    return table


def find_row(node: Node) -> Row | None:
    """Return the row of this node's op; None if there is none, or if the node is marked as opaque."""
    return None if node.opaque or node.domain not in ("", "ai.onnx") else _table().get(node.op_type)


def covered() -> tuple[str, ...]:
    """Return the names of all ops that have a row, sorted."""
    return tuple(sorted(_table()))
