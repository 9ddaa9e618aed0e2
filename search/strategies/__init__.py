"""Search strategies, one algorithm per file, found by file name; each file offers a constant `STRATEGY`."""

from __future__ import annotations

from search.discovery import Discovery
from search.errors import InvalidInput, did_you_mean
from search.strategy import StrategyFamily

_STRATEGIES = Discovery(__name__, "STRATEGY", StrategyFamily)
names = _STRATEGIES.names


def load(name: str) -> StrategyFamily:
    """Return the strategy with this name. Raises: InvalidInput for an unknown name."""
    if name not in names():
        raise InvalidInput("strategy", name, f"no such strategy; {did_you_mean(name, names())}")
    return _STRATEGIES.load(name)
