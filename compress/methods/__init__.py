"""Compression methods, one per file, found by file name; each file offers a constant `METHOD`."""

from __future__ import annotations

from compress.errors import InvalidInput
from compress.method import MethodFamily
from search.discovery import Discovery

_METHODS = Discovery(__name__, "METHOD", MethodFamily)
names = _METHODS.names


def load(name: str) -> MethodFamily:
    """Return the method of that name.

    Raises:
        InvalidInput: there is no such method.
    """
    if name not in names():
        raise InvalidInput("methods", name, f"no such method; the methods are {', '.join(names())}")
    return _METHODS.load(name)
