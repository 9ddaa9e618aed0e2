"""Number formats for people: each number is shown with its unit and only its significant digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.metric import Metric

DASH = "–"


def ms(value: float | None) -> str:
    """Format milliseconds: 0.482 ms, 12.3 ms."""
    if value is None:
        return DASH
    digits = 3 if value < 10 else 1 if value < 1000 else 0
    return f"{value:.{digits}f} ms"


def percent(ratio: float | None, digits: int = 2) -> str:
    """Format a ratio of 0..1 as a percentage."""
    return DASH if ratio is None else f"{100 * ratio:z.{digits}f} %"


def count(value: float | None) -> str:
    """Format a count with its magnitude: 40.6 M."""
    if value is None:
        return DASH
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def size(value: float | None) -> str:
    """Format bytes: 1.08 MB."""
    if value is None:
        return DASH
    for unit_size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit_size:
            return f"{value / unit_size:.3g} {unit}"
    return f"{value:.0f} B"


def metric(value: float | None, row: Metric) -> str:
    """Format the value of a metric: bytes and counts with their magnitude, other values as the metric's row says."""
    if value is None:
        return DASH
    by_unit: Mapping[str, Callable[[float], str]] = {"": count, "bytes": size, "ms": ms}
    return by_unit.get(row.unit, row.show)(value)


def duration(seconds: float | None) -> str:
    """Format seconds in the largest fitting unit."""
    if seconds is None:
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def ago(moment: datetime | None) -> str:
    """Format the time since a moment: 5 min ago."""
    if moment is None:
        return "never"
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{duration(max((datetime.now(UTC) - aware).total_seconds(), 0.0))} ago"


def stamp(moment: datetime | None) -> str:
    """Format a moment in UTC, to the second."""
    return DASH if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


FILTERS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function for function in (ms, percent, count, size, metric, duration, ago, stamp)
}
