"""The op tables by family. Adding an op is adding a row; adding a family is adding a file that offers ROWS."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from compress.network import Node
from compress.ops.row import Row


@cache
def _table() -> Mapping[str, Row]:
    table: dict[str, Row] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name != "row":
            for row in importlib.import_module(f"{__name__}.{module.name}").ROWS:
                table |= dict.fromkeys(row.op_types, row)
    return table


def find_row(node: Node) -> Row | None:
    """The row of this node's op; None if there is none, or it was seen to break on this node."""
    return None if node.opaque or node.domain not in ("", "ai.onnx") else _table().get(node.op_type)


def covered() -> tuple[str, ...]:
    """Names of all ops that have a row, sorted."""
    return tuple(sorted(_table()))
