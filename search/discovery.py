"""Discovery: find the plug-ins of a package (one per file) and the plug-ins that other distributions add.

STRATEGIES = Discovery("search.strategies", "STRATEGY", StrategyFamily)
STRATEGIES.names()          ("bayesian", ..., and the entry points of group "netlathe.strategies")
STRATEGIES.load("bayesian") the constant STRATEGY of search/strategies/bayesian.py
"""

from __future__ import annotations

import pkgutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
PREFIX = "netlathe."


@dataclass(frozen=True)
class Discovery(Generic[T]):
    """The plug-ins of one kind. Each file or folder of `package` offers one plug-in as its constant `constant`; the
    plug-in is named after the file.

    Another distribution adds a plug-in by an entry point of the group "netlathe.<last word of the package>".
    """

    package: str
    constant: str
    kind: type[T]

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted, without importing anything."""
        return tuple(sorted({*module_names(self.package), *self._entry_points()}))

    def load(self, name: str) -> T:
        """Return the plug-in of this name; a plug-in of this package is preferred to an entry point.

        Raises:
            KeyError: there is no plug-in of that name.
            TypeError: the constant under this name is of another kind.
        """
        if name in module_names(self.package):
            found = getattr(import_module(f"{self.package}.{name}"), self.constant)
        else:
            found = self._entry_points()[name].load()
        if not isinstance(found, self.kind):
            raise TypeError(f"{self.package}: {name} offers {found!r}, not a {self.kind.__name__}")
        return found

    def _entry_points(self) -> dict[str, EntryPoint]:
        group = PREFIX + self.package.rpartition(".")[2]
        return {point.name: point for point in entry_points(group=group)}


def module_names(package: str) -> tuple[str, ...]:
    """Return the names of the modules and packages in a package, sorted, except those that begin with an underscore."""
    path: Any = import_module(package).__path__
    return tuple(sorted(found.name for found in pkgutil.iter_modules(path) if not found.name.startswith("_")))


def modules(package: str, skip: Collection[str] = ()) -> Iterator[ModuleType]:
    """Import every module of a package and its subpackages, in the order of their names, except those in `skip`."""
    for name in (name for name in module_names(package) if name not in skip):
        module = import_module(f"{package}.{name}")
        yield module
        if hasattr(module, "__path__"):
            yield from modules(module.__name__)
