"""Metrics, one per file, for limits, forms, fronts, tables and reports. Each file offers a constant `METRIC`.

Another distribution adds a metric by an entry point of the group "netlathe.metrics".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from search.discovery import Discovery
from search.errors import InvalidInput, did_you_mean
from search.metric import Metric
from search.problem import Constraint

Form: TypeAlias = Literal["max", "min", "drop", "ratio"]


_DISCOVERED = Discovery(__name__, "METRIC", Metric)
_ROWS = [_DISCOVERED.load(name) for name in _DISCOVERED.names()]
_ON_TEST = [metric.on_test for metric in _ROWS if metric.scored]
METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in sorted((*_ROWS, *_ON_TEST), key=lambda metric: (metric.order, metric.name))
}
"""Every metric by name, in the order of tables."""
COUNTED: tuple[Metric, ...] = tuple(metric for metric in METRICS.values() if metric.counter)
"""Metrics that are counted on a network."""
CLEARLY_LESS = 0.9
"""A metric that is a part of another is shown only if it is below this share of the whole, because any network has a
few zeros.
"""


def shown_counts(networks: Iterable[Mapping[str, float]]) -> tuple[Metric, ...]:
    """Return the counted metrics that a table of these networks shows. A part of another metric is shown only if it is
    small enough.

    Counts that have no row here, e.g. from another installation, come last under their own names.
    """
    found = list(networks)
    known = dict.fromkeys(name for network in found for name in network)
    told = [metric for metric in COUNTED if metric.name in known and _says_more(metric, found)]
    return (*told, *(Metric(name, "", "min", name, ",.6g") for name in known if name not in METRICS))


def _says_more(metric: Metric, networks: Iterable[Mapping[str, float]]) -> bool:
    pairs = [(network[metric.name], network.get(metric.part_of)) for network in networks if metric.name in network]
    return not metric.part_of or any(whole is not None and part < CLEARLY_LESS * whole for part, whole in pairs)


def row_of(name: str) -> Metric:
    """Return the row of a score's metric, or a plain row if only another installation has this metric."""
    return METRICS.get(name) or Metric(name, "", "max", name, ".4f", scored=True)


def latency_metric(device_id: str) -> str:
    """Return the key of one device's latency: `latency_ms@dev_1`."""
    return f"latency_ms@{device_id}"


def base_metric(key: str) -> str:
    """Return the name in METRICS behind a key: `latency_ms@dev_1` -> `latency_ms`."""
    return key.partition("@")[0]


def device_of(key: str) -> str | None:
    """Return the device in a key, or None: `latency_ms@dev_1` -> `dev_1`."""
    return key.partition("@")[2] or None


@dataclass(frozen=True)
class Limit:
    """The meaning of a limit's name: a metric, and the form of the limit's value."""

    name: str
    metric: Metric
    form: Form

    @property
    def caps_a_score(self) -> bool:
        """True if the limit is an upper bound on a score, which a better network would break."""
        return self.metric.scored and self.form in ("max", "ratio")

    def check(self, value: object) -> float:
        """Return the limit's value as a number. Raises: InvalidInput if it is not valid for this form."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidInput(self.name, value, "must be a finite number")
        from_zero = self.form in ("drop", "min")
        if value < 0 or (value == 0 and not from_zero):
            raise InvalidInput(self.name, value, "must be at least 0" if from_zero else "must be above 0")
        if self.form != "ratio" and value > self.metric.highest:
            raise InvalidInput(self.name, value, f"must be at most {self.metric.highest:g}")
        return float(value)

    def constraint(self, value: object, original: Mapping[str, float], key: str) -> Constraint:
        """Return the constraint on metric `key` that `value` means for this original. Raises InvalidInput if the value
        is not valid or the original's metric is not known.
        """
        number = self.check(value)
        if self.form == "max":
            return Constraint(key, number, "max")
        if self.form == "min":
            return Constraint(key, number, "min")
        if key not in original:
            raise InvalidInput(self.name, value, f"the original's {key} is not known, so this limit has no value")
        if self.form == "ratio":
            return Constraint(key, number * original[key], "max")
        return Constraint(key, original[key] - number, "min")


def _limits() -> dict[str, Limit]:
    found: dict[str, Limit] = {}
    for metric in METRICS.values():
        forms: dict[str, Form] = {f"max_{metric.name}": "max", f"min_{metric.name}": "min"}
        if metric.goal == "max":
            forms[f"max_{metric.name}_drop"] = "drop"
        forms |= {f"max_{metric.stem}_ratio": "ratio", f"max_{metric.name}_ratio": "ratio"}
        found |= {name: Limit(name, metric, form) for name, form in forms.items()}
    return found


LIMITS: Mapping[str, Limit] = _limits()
"""All limits by name."""


def parse_limit(name: str) -> Limit:
    """Return the limit of this name. Raises: InvalidInput for an unknown name, with the nearest known name."""
    if name not in LIMITS:
        raise InvalidInput(name, name, f"no such limit; {did_you_mean(name, LIMITS)}")
    return LIMITS[name]


def parse_limits(
    limits: Mapping[str, float | None], original: Mapping[str, float], device_id: str | None = None
) -> tuple[Constraint, ...]:
    """Return constraints for limits as a user wrote them; None means no limit.

    `original` holds the metrics of the uncompressed network, by key. Limits on a per-device metric belong to a
    target and need its `device_id`.
    Raises: InvalidInput if a name is unknown, a value is impossible, or the original's value for a drop or ratio is
        missing.
    """
    found = []
    for name, value in limits.items():
        limit = parse_limit(name)
        if value is None:
            continue
        key = limit.metric.name
        if limit.metric.per_device:
            if device_id is None:
                raise InvalidInput(name, value, "a limit of this metric belongs to a target, next to its device")
            key = f"{key}@{device_id}"
        found.append(limit.constraint(value, original, key))
    return tuple(found)
