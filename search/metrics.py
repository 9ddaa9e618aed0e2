"""The metrics: one table, from which limits, forms, fronts and reports follow."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from search.errors import InvalidInput, did_you_mean
from search.problem import Constraint, Goal

Form: TypeAlias = Literal["max", "min", "drop", "ratio"]


@dataclass(frozen=True)
class Metric:
    """A named number. `format` is a format spec for `value * factor`, which is how `unit` shows it."""

    name: str
    unit: str
    goal: Goal
    label: str
    format: str
    factor: float = 1.0
    per_device: bool = False
    highest: float = math.inf

    @property
    def stem(self) -> str:
        """The name without its unit: limits on ratios have no unit (`max_latency_ratio`)."""
        return re.sub(r"_(ms|bytes)$", "", self.name)

    def show(self, value: float) -> str:
        """`value` for people, with its unit."""
        return f"{value * self.factor:{self.format}} {self.unit}".rstrip()


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "%", "max", "Accuracy (validation)", ".2f", factor=100.0, highest=1.0),
        Metric("test_accuracy", "%", "max", "Accuracy (test)", ".2f", factor=100.0, highest=1.0),
        Metric("latency_ms", "ms", "min", "Latency", ".3f", per_device=True),
        Metric("macs", "", "min", "MACs", ",.0f"),
        Metric("parameters", "", "min", "Parameters", ",.0f"),
        Metric("size_bytes", "bytes", "min", "File size", ",.0f"),
        Metric("nonzeros", "", "min", "Non-zero parameters", ",.0f"),
        Metric("stored_bytes", "bytes", "min", "Stored with indices", ",.0f"),
    )
}


def latency_metric(device_id: str) -> str:
    """The key of one device's latency: `latency_ms@dev_1`."""
    return f"latency_ms@{device_id}"


def base_metric(key: str) -> str:
    """The name in METRICS behind a key: `latency_ms@dev_1` -> `latency_ms`."""
    return key.partition("@")[0]


def device_of(key: str) -> str | None:
    """The device in a key, or None: `latency_ms@dev_1` -> `dev_1`."""
    return key.partition("@")[2] or None


@dataclass(frozen=True)
class Limit:
    """What a limit's name says: a metric, and the form its value has."""

    name: str
    metric: Metric
    form: Form

    def check(self, value: object) -> float:
        """The limit's value as a number. Raises: InvalidInput where it cannot be one of this form."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidInput(self.name, value, "must be a finite number")
        from_zero = self.form in ("drop", "min")
        if value < 0 or (value == 0 and not from_zero):
            raise InvalidInput(self.name, value, "must be at least 0" if from_zero else "must be above 0")
        if self.form != "ratio" and value > self.metric.highest:
            raise InvalidInput(self.name, value, f"must be at most {self.metric.highest:g}")
        return float(value)

    def constraint(self, value: object, original: Mapping[str, float], key: str) -> Constraint:
        """The bound on metric `key` that `value` means for this original. Raises: InvalidInput."""
        number = self.check(value)
        if self.form == "max":
            return Constraint(key, number, "max")
        if self.form == "min":
            return Constraint(key, number, "min")
        if key not in original:
            raise InvalidInput(self.name, value, f"the original's {key} is not known, so this has no bound")
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
"""Every limit there is, by name."""


def parse_limit(name: str) -> Limit:
    """The limit of that name. Raises: InvalidInput with the nearest known name."""
    if name not in LIMITS:
        raise InvalidInput(name, name, f"no such limit; {did_you_mean(name, LIMITS)}")
    return LIMITS[name]


def parse_limits(
    limits: Mapping[str, float | None], original: Mapping[str, float], device_id: str | None = None
) -> tuple[Constraint, ...]:
    """Limits as a user wrote them -> constraints; None means no limit.

    `original` holds the metrics of the untouched network, by key. Limits on a per-device metric belong to a
    target and need its `device_id`.
    Raises: InvalidInput for an unknown name, an impossible value, or a drop or ratio of an unknown original.
    """
    found = []
    for name, value in limits.items():
        limit = parse_limit(name)
        if value is None:
            continue
        key = limit.metric.name
        if limit.metric.per_device:
            if device_id is None:
                raise InvalidInput(name, value, "a limit of this metric belongs to a target, with its device")
            key = f"{key}@{device_id}"
        found.append(limit.constraint(value, original, key))
    return tuple(found)
