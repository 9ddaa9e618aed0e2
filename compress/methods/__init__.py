"""What can be done to a network: one method a file, found by its file name; each offers `METHOD`."""

from __future__ import annotations

from compress.errors import InvalidInput
from compress.method import MethodFamily
from search.discovery import Discovery

_METHODS = Discovery(__name__, "METHOD", MethodFamily)
names = _METHODS.names


def load(name: str) -> MethodFamily:
    """The method of that name.

    Raises:
        InvalidInput: there is none.
    """
    if name not in names():
        raise InvalidInput("methods", name, f"no such method; there are {', '.join(names())}")
    return _METHODS.load(name)
