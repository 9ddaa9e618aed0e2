"""Built-in networks for trials. Each module of this folder that offers `NETWORKS` adds its rows to the table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from compress.builtin.network import Builtin
from compress.errors import InvalidInput
from compress.export import export
from search.discovery import modules


@cache
def table() -> Mapping[str, Builtin]:
    """Return every built-in network by name."""
    rows = [row for module in modules(__name__) for row in getattr(module, "NETWORKS", ())]
    return {row.name: row for row in sorted(rows, key=lambda row: row.name)}


def names() -> tuple[str, ...]:
    """Return the names of the built-in networks, sorted."""
    return tuple(table())


def load(name: str) -> Builtin:
    """Return the built-in network of that name.

    Raises:
        InvalidInput: there is no such network; the message lists those that exist.
    """
    if name not in table():
        message = f"no built-in network {name!r}, expected one of {', '.join(names())}"
        raise InvalidInput("name", name, message)
    return table()[name]


def export_builtin(name: str, seed: int) -> bytes:
    """Return the ONNX bytes of a built-in network with the initial weights of `seed`, exported like a user's module."""
    network = load(name)
    return export(network.factory(seed), network.input_shape)
