"""Compares two entrants on the same seeds and test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import t

from compress.scoring.difference import mean_interval
from racing.final_training import unpacked

Interval: TypeAlias = "tuple[float, float]"


@dataclass(frozen=True)
class Gap:
    """Mean test accuracy by which the first of two entrants is ahead, with its 95 % intervals.

    `over_seeds` (Student's t) shows whether other seeds would give the gap too, on these images; it is None for one
    seed. `over_images` (normal, averaged over the seeds) shows whether other images would.
    """

    ahead: float
    over_images: Interval
    over_seeds: Interval | None
    seeds: int

    @property
    def intervals(self) -> list[Interval]:
        """The intervals that there are."""
        return [self.over_images, *([self.over_seeds] if self.over_seeds else [])]

    @property
    def tie(self) -> bool:
        """True if zero lies within an interval."""
        return any(low <= 0.0 <= high for low, high in self.intervals)


def gap(first: Mapping[int, Mapping[str, Any]], second: Mapping[int, Mapping[str, Any]]) -> Gap | None:
    """Return the gap between two entrants' test rows by seed, over their common seeds; None if there are none."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    lost = [_right(first[seed]) - _right(second[seed]) for seed in seeds]
    means = [float(each.mean()) for each in lost]
    return Gap(float(np.mean(means)), mean_interval(np.mean(lost, axis=0)), _over_seeds(means), len(seeds))


def _over_seeds(means: Sequence[float]) -> Interval | None:
    if len(means) < 2:
        return None
    half = float(t.ppf(0.975, len(means) - 1)) * float(np.std(means, ddof=1)) / sqrt(len(means))
    return float(np.mean(means)) - half, float(np.mean(means)) + half


def _right(row: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return unpacked(row["right"], row["images"])
