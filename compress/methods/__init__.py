"""What can be done to a network: one method a file, found by its file name; each offers `METHOD`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from compress.errors import InvalidInput
from compress.method import MethodFamily


def names() -> tuple[str, ...]:
    """The methods there are, by name, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> MethodFamily:
    """The method of that name.

    Raises:
        InvalidInput: there is none.
    """
    if name not in names():
        raise InvalidInput(f"no such method; there are {', '.join(names())}", field="methods", value=name)
    family = import_module(f"compress.methods.{name}").METHOD
    if not isinstance(family, MethodFamily):
        raise TypeError(f"compress/methods/{name}.py: METHOD is {family!r}, not a MethodFamily")
    return family
