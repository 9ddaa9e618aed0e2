"""Timings: the protocol's numbers, the raw bursts of one model, and the statistics computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InvalidInput

Statistic = Literal["quiet", "p50", "p95"]
Extra: TypeAlias = Mapping[str, "str | float | bool"]

# The percentile of burst minima that counts as the latency of an undisturbed machine. It was chosen; docs/benchmarks.md
# (benchmarks/burst_protocol.py) compares how repeatable it and the median of a long run are on a loaded machine.
QUIET_PERCENTILE = 5.0
# Ratio of p50 to quiet latency above which users are warned of other work on the machine.
NOISY = 1.3


@dataclass(frozen=True)
class BurstProtocol:
    """Short bursts, round-robin over all pending models in random order.

    One burst consists of `warm_runs` untimed runs and then `timed_runs` timed runs of one model. After `min_rounds`,
    and then every `round_step` rounds, a model is done if its split-half difference is under `split_half`; `max_rounds`
    ends it in any case. A round takes at least `round_s`: interference lasts for 0.1-1 s, and a handful of models timed
    within one disturbance would agree on a wrong figure. `seed` determines the order. For a verdict, set `min_rounds ==
    max_rounds`, so that the rounds of all models are paired.
    """

    warm_runs: int = 1
    timed_runs: int = 6
    min_rounds: int = 10
    max_rounds: int = 60
    round_step: int = 5
    split_half: float = 0.01
    round_s: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("timed_runs", "min_rounds", "round_step"):
            if getattr(self, name) < 1:
                raise InvalidInput(name, getattr(self, name), "must be at least 1")
        if self.warm_runs < 0:
            raise InvalidInput("warm_runs", self.warm_runs, "must be at least 0")
        if self.max_rounds < self.min_rounds:
            raise InvalidInput("max_rounds", self.max_rounds, f"must be at least min_rounds, {self.min_rounds}")
        if not 0 <= self.round_s <= 60:
            raise InvalidInput("round_s", self.round_s, "must be from 0 to 60")
        if not self.split_half > 0:
            raise InvalidInput("split_half", self.split_half, "must be above 0")


@dataclass(frozen=True)
class Timing:
    """A summary in microseconds. `quiet_us` is the p5 of burst minima; `p50_us` and `p95_us` are percentiles of burst
    medians; `split_half` is the relative difference of the quiet latency between even and odd rounds. `extra` has
    further facts by name, among them `suspect` with a reason if the figure is doubtful.
    """

    quiet_us: float
    p50_us: float
    p95_us: float
    split_half: float
    bursts: int
    extra: Extra = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("quiet_us", "p50_us", "p95_us", "split_half"):
            if not np.isfinite(getattr(self, name)):
                raise InvalidInput(name, getattr(self, name), "must be a finite number")

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `Timing(**data)` makes an equal timing."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "extra": dict(self.extra),
        }


@dataclass(frozen=True)
class Sample:
    """The raw bursts of one model in the order of rounds: minimum and median of each burst, microseconds."""

    key: str
    minima_us: tuple[float, ...]
    medians_us: tuple[float, ...]
    extra: Extra = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.minima_us or len(self.minima_us) != len(self.medians_us):
            raise InvalidInput(
                "minima_us", len(self.minima_us), f"must have as many values as medians, {len(self.medians_us)}"
            )
        if not np.isfinite(self.minima_us).all() or min(self.minima_us) <= 0:
            raise InvalidInput("minima_us", min(self.minima_us), "must be finite and above 0")

    @property
    def bursts(self) -> int:
        return len(self.minima_us)

    def timing(self) -> Timing:
        """Return the summary of these bursts; `noisy_host` is set if the median is far above the quiet latency."""
        quiet_us, p50_us = statistic_us(self, "quiet"), statistic_us(self, "p50")
        return Timing(
            quiet_us=quiet_us,
            p50_us=p50_us,
            p95_us=statistic_us(self, "p95"),
            split_half=split_half(self.minima_us),
            bursts=self.bursts,
            extra={**self.extra, **({"noisy_host": True} if p50_us > NOISY * quiet_us else {})},
        )


@dataclass(frozen=True)
class Failure:
    """A model that could not be timed: `reason` is one line for people, `kind` one word for programs."""

    key: str
    reason: str
    kind: str = "error"


def statistic_us(sample: Sample, statistic: Statistic) -> float:
    """Return a statistic in microseconds: `quiet` is the p5 of burst minima; `p50` and `p95` are percentiles of burst
    medians.
    """
    values, percentile = statistic_values(sample, statistic)
    return float(np.percentile(values, percentile))


def split_half(minima_us: tuple[float, ...]) -> float:
    """Return the relative difference of the quiet latency between even and odd rounds; 1 after a single round."""
    if len(minima_us) < 2:
        return 1.0
    even, odd = (float(np.percentile(minima_us[start::2], QUIET_PERCENTILE)) for start in (0, 1))
    return abs(even - odd) / (0.5 * (even + odd))


def statistic_values(sample: Sample, statistic: Statistic) -> tuple[npt.NDArray[np.float64], float]:
    """Return the values (n,) from which `statistic` is computed, one per burst, and the percentile to take of them. The
    values are minima for `quiet`, and medians for the other statistics, so p95 is the 95th percentile of burst medians,
    not of single runs.

    Raises InvalidInput for an unknown statistic.
    """
    percentiles = {"quiet": QUIET_PERCENTILE, "p50": 50.0, "p95": 95.0}
    if statistic not in percentiles:
        raise InvalidInput("statistic", statistic, f"must be one of {', '.join(percentiles)}")
    values = sample.minima_us if statistic == "quiet" else sample.medians_us
    return np.asarray(values, dtype=np.float64), percentiles[statistic]


def bootstrap_upper(
    sample: Sample,
    reference: Sample | None,
    statistic: Statistic = "quiet",
    *,
    percentile: float = 97.5,
    resamples: int = 2000,
    seed: int = 0,
) -> float:
    """Return the upper bootstrap percentile, over bursts, of latency(sample) / latency(reference), or of the latency of
    `sample` in microseconds if `reference` is None.

    Rounds are resampled jointly if both samples have the same number of rounds: models timed in one interleaved run
    share the disturbances of each round, and pairing the rounds keeps these out of the ratio.
    """
    rng = np.random.default_rng(seed)
    values, level = statistic_values(sample, statistic)
    rounds = rng.integers(0, len(values), (resamples, len(values)))
    upper = np.percentile(values[rounds], level, axis=1)
    if reference is not None:
        below, _ = statistic_values(reference, statistic)
        if len(below) != len(values):
            rounds = rng.integers(0, len(below), (resamples, len(below)))
        upper = upper / np.percentile(below[rounds], level, axis=1)
    return float(np.percentile(upper, percentile))
