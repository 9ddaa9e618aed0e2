"""What to try next: one algorithm a file, found by its file name; each offers `STRATEGY`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from search.errors import InvalidInput, did_you_mean
from search.strategy import StrategyFamily


def names() -> tuple[str, ...]:
    """The strategies there are, by name, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> StrategyFamily:
    """The strategy of that name. Raises: InvalidInput for an unknown one."""
    if name not in names():
        raise InvalidInput("strategy", name, f"no such strategy; {did_you_mean(name, names())}")
    family = import_module(f"search.strategies.{name}").STRATEGY
    if not isinstance(family, StrategyFamily):
        raise TypeError(f"search/strategies/{name}.py: STRATEGY is {family!r}, not a StrategyFamily")
    return family
