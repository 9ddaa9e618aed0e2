"""LatencyTable: a frozen, epoch-stamped snapshot of the latencies of blocks on one device."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.ops import Op
from hw_profiles.tables.calibration import Array, Calibration
from hw_profiles.tables.features import Features, features_from_json, features_of
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.predictor import KindPredictor, work
from hw_profiles.timing.protocol import Timing

Source = Literal["measured", "class", "gp", "missing"]

# Lower bound on the relative uncertainty of a latency taken from a row of the same kernel class. In the rows of
# benchmarks/predictor_accuracy.py, the latencies of one class differ by about this much in fp32, and by more in int8
# (docs/benchmarks.md).
CLASS_SIGMA_FLOOR = 0.02
# Minimum relative uncertainty of a row whose block did not fuse into one kernel.
SUSPECT_SIGMA = 0.10


@dataclass(frozen=True)
class Row:
    """One measured block: `latency_us` (with the session's scale applied), its standard deviation, and the epoch in
    which it was measured. `key` is the key of the block's op.
    """

    key: str
    features: Features
    timing: Timing
    latency_us: float
    sigma_us: float
    epoch: int = 0

    def __post_init__(self) -> None:
        for name in ("latency_us", "sigma_us"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InvalidInput(name, getattr(self, name), "must be finite and at least 0")

    @classmethod
    def of(cls, op: Op, timing: Timing, scale: float = 1.0, epoch: int = 0) -> Row:
        """Make the row of a slope timing (see `copies_timing.py`), its latency multiplied by the session's `scale`."""
        latency_us = max(timing.quiet_us * scale, 0.0)
        sigma_us = float(timing.extra.get("sigma_us", 0.0)) * scale
        if "suspect" in timing.extra:
            sigma_us = max(sigma_us, SUSPECT_SIGMA * latency_us)
        return cls(op.key, features_of(op), timing, latency_us, sigma_us, epoch)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes an equal row."""
        return {
            "key": self.key,
            "features": dict(self.features),
            "timing": self.timing.to_json(),
            "latency_us": self.latency_us,
            "sigma_us": self.sigma_us,
            "epoch": self.epoch,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """Read the output of `to_json`. Raises InvalidInput on unknown, missing or wrong fields."""
        try:
            return cls(**{**data, "features": features_from_json(data["features"]), "timing": Timing(**data["timing"])})
        except (TypeError, KeyError) as error:
            raise InvalidInput("row", dict(data), f"not the JSON form of a row: {error}") from error


@dataclass(frozen=True)
class Entry:
    """A table's knowledge of one op. `missing` marks a guess based on the op's work. Its uncertainty is as large as the
    guess itself, which is NaN if the table is empty.
    """

    latency_us: float
    sigma_us: float
    source: Source


@dataclass(frozen=True)
class Prediction:
    """A network's latency with its 95 % interval. `coverage` is the share of the blocks' time that comes from measured
    rows of the same op or the same kernel class. `missing` lists the other ops without duplicates, the most uncertain
    first. `blocks` has one entry for each op of the network, in order.
    """

    latency_us: float
    low_us: float
    high_us: float
    sigma_us: float
    coverage: float
    missing: tuple[Op, ...]
    blocks: tuple[Entry, ...]


@dataclass(frozen=True)
class LatencyTable:
    """A device's rows by op key. A lookup tries the measured row, then a row of the same kernel class, then the
    predictor of the kind; otherwise the op counts as missing. Answers are cached in the snapshot, so a repeated lookup
    costs a dictionary access.
    """

    device: DeviceConfig
    epoch: int = 0
    rows: Mapping[str, Row] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    classes: KernelClasses = field(default_factory=KernelClasses)
    _cache: dict[str, Entry] = field(default_factory=dict, init=False, repr=False, compare=False)
    _predictors: dict[str, KindPredictor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def lookup(self, op: Op) -> Entry:
        """Return the table's knowledge of `op`."""
        return self._cache.get(op.key) or self.entries([op])[0]

    def latency_us(self, op: Op) -> float:
        """Return the latency of one block, uncalibrated; NaN only if the table is empty."""
        return self.lookup(op).latency_us

    def entries(self, ops: Sequence[Op]) -> tuple[Entry, ...]:
        """Look up many ops at once, with one predictor call for each kind."""
        unknown = {op.key: op for op in ops if op.key not in self._cache}
        predicted: dict[str, list[Op]] = defaultdict(list)
        for key, op in unknown.items():
            entry = self._measured(key) or self._in_class(op)
            if entry:
                self._cache[key] = entry
            else:
                predicted[features_of(op)["kind"]].append(op)
        for kind, same_kind in predicted.items():
            self._predict_kind(kind, same_kind)
        return tuple(self._cache[op.key] for op in ops)

    def predict(self, networks: Sequence[Sequence[Op]]) -> tuple[Prediction, ...]:
        """Return one prediction for each network, which is given as its ops (an op that occurs several times is listed
        several times).
        """
        self.entries([op for network in networks for op in network])
        return tuple(self._predict(network) for network in networks)

    def sums_us(self, networks: Sequence[Sequence[Op]]) -> tuple[Array, Array]:
        """Return (sums of block latencies, standard deviations of the sums), each of shape (networks,)."""
        self.entries([op for network in networks for op in network])
        sums = [sum(self._cache[op.key].latency_us for op in network) for network in networks]
        sigmas = [_sum_sigma([(op.key, self._cache[op.key]) for op in network]) for network in networks]
        return np.asarray(sums, dtype=np.float64), np.asarray(sigmas, dtype=np.float64)

    def updated(
        self,
        rows: Iterable[Row] = (),
        *,
        epoch: int | None = None,
        calibration: Calibration | None = None,
        classes: KernelClasses | None = None,
    ) -> LatencyTable:
        """Return a new snapshot with these rows added (replacing rows with the same key) and the other arguments
        applied.
        """
        added = {row.key: row for row in rows}
        snapshot = replace(
            self,
            rows={**self.rows, **added},
            epoch=self.epoch if epoch is None else epoch,
            calibration=calibration or self.calibration,
            classes=classes or self.classes,
        )
        if not added and snapshot.classes == self.classes:
            # Entries and fitted predictors depend only on rows and classes, and fitting takes seconds.
            snapshot._cache.update(self._cache)
            snapshot._predictors.update(self._predictors)
        return snapshot

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes an equal table."""
        return {
            "device": self.device.to_json(),
            "epoch": self.epoch,
            "rows": [row.to_json() for row in self.rows.values()],
            "calibration": self.calibration.to_json(),
            "classes": self.classes.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Read the output of `to_json`. Raises InvalidInput on unknown, missing or wrong fields."""
        try:
            rows = [Row.from_json(row) for row in data["rows"]]
            return cls(
                device=DeviceConfig.from_json(data["device"]),
                epoch=int(data["epoch"]),
                rows={row.key: row for row in rows},
                calibration=Calibration.from_json(data["calibration"]),
                classes=KernelClasses.from_json(data["classes"]),
            )
        except KeyError as error:
            raise InvalidInput("table", sorted(data), f"lacks the field {error}") from error

    def _measured(self, key: str) -> Entry | None:
        row = self.rows.get(key)
        return Entry(row.latency_us, row.sigma_us, "measured") if row else None

    @cached_property
    def _class_rows(self) -> dict[str, list[Row]]:
        found = defaultdict(list)
        for row in self.rows.values():
            name = self.classes.class_of(row.features)
            if name is not None:
                found[name].append(row)
        return dict(found)

    def _in_class(self, op: Op) -> Entry | None:
        """Return the median and spread of the measured rows of the op's kernel class."""
        name = self.classes.class_of(features_of(op))
        rows = self._class_rows.get(name, []) if name is not None else []
        if not rows:
            return None
        latencies = np.array([row.latency_us for row in rows])
        latency_us = float(np.median(latencies))
        own_sigma = max(row.sigma_us for row in rows)
        sigma_us = max(float(latencies.std()), own_sigma, CLASS_SIGMA_FLOOR * latency_us)
        return Entry(latency_us, sigma_us, "class")

    @cached_property
    def _us_per_work(self) -> float:
        rates = [row.latency_us / work(row.features) for row in self.rows.values() if work(row.features)]
        return float(np.median(rates)) if rates else math.nan

    def _predict_kind(self, kind: str, ops: Sequence[Op]) -> None:
        if kind not in self._predictors:
            rows = [row for row in self.rows.values() if row.features["kind"] == kind]
            columns, latencies = [row.features for row in rows], [row.latency_us for row in rows]
            self._predictors[kind] = KindPredictor(columns, latencies, self.classes)
        answers = self._predictors[kind].predict([features_of(op) for op in ops])
        for index, op in enumerate(ops):
            if answers is not None:
                self._cache[op.key] = Entry(float(answers[0][index]), float(answers[1][index]), "gp")
            else:
                guess_us = self._us_per_work * work(features_of(op))
                self._cache[op.key] = Entry(guess_us, guess_us, "missing")

    def _predict(self, network: Sequence[Op]) -> Prediction:
        blocks = tuple(self._cache[op.key] for op in network)
        sum_us = np.float64(sum(entry.latency_us for entry in blocks))
        sum_sigma_us = _sum_sigma([(op.key, self._cache[op.key]) for op in network])
        latency_us = float(self.calibration.latency_us(np.asarray(sum_us)))
        sigma_us = float(self.calibration.sigma_us(np.asarray(sum_us), np.asarray(sum_sigma_us)))
        half_us = float(self.calibration.half_width_us(np.asarray(sum_us), np.asarray(sum_sigma_us)))
        covered_us = sum(entry.latency_us for entry in blocks if entry.source in ("measured", "class"))
        open_ops = {op.key: op for op, e in zip(network, blocks, strict=True) if e.source in ("gp", "missing")}
        return Prediction(
            latency_us=latency_us,
            low_us=max(latency_us - half_us, 0.0),
            high_us=latency_us + half_us,
            sigma_us=sigma_us,
            coverage=float(covered_us / sum_us) if sum_us > 0 else 0.0,
            missing=tuple(sorted(open_ops.values(), key=lambda op: -self._cache[op.key].sigma_us)),
            blocks=blocks,
        )


def _sum_sigma(blocks: Sequence[tuple[str, Entry]]) -> float:
    """Return the standard deviation of a sum: errors of the same op add up, errors of different ops are independent."""
    counts = Counter(key for key, _ in blocks)
    sigmas = {key: entry.sigma_us for key, entry in blocks}
    return math.sqrt(sum((count * sigmas[key]) ** 2 for key, count in counts.items()))
