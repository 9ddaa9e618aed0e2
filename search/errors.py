"""Errors of a search.

SearchError
├── InvalidInput   a value from outside is wrong; it names the field and the value seen (also a ValueError)
└── Infeasible     no point found in the space meets the constraints; it carries the nearest point
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class SearchError(Exception):
    """Base of the errors of this folder."""


class InvalidInput(SearchError, ValueError):
    """A value from outside that cannot be used.

    `field` is the path of the value in the input (`settings.draws`); `value` is the value seen there.
    """

    def __init__(self, field: str, value: object, message: str) -> None:
        super().__init__(field, value, message)
        self.field = field
        self.value = value
        self.message = message

    def __str__(self) -> str:
        return f"{self.field}: {self.message} (got {self.value!r})"


class Infeasible(SearchError):
    """No point within the limits was found in the allowed number of tries.

    `nearest` holds the values with the smallest violation seen, `metrics` the estimated metrics of these values, and
    `violation` is their distance from the bounds (relative, summed over the constraints).
    """

    def __init__(self, nearest: Mapping[str, Any], metrics: Mapping[str, float], violation: float) -> None:
        super().__init__(nearest, metrics, violation)
        self.nearest = dict(nearest)
        self.metrics = dict(metrics)
        self.violation = violation

    def __str__(self) -> str:
        metrics = ", ".join(f"{name} {value:.6g}" for name, value in self.metrics.items())
        return f"no candidate meets the limits; the nearest candidate exceeds them by {self.violation:.1%} ({metrics})"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: `did you mean 'x'?`, or all known names if no name is close."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
