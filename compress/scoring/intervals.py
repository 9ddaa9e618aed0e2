"""Intervals: 95 % intervals of shares of correctly classified images."""

from __future__ import annotations

import math
from collections.abc import Callable

Z = 1.959964
_HALVINGS = 60


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the interval of a share (Wilson 1927), which is also valid for shares near 1. `count` is at least 1.

    Returns:
        (low, high), both in 0..1.
    """
    share, z2 = right / count, Z * Z
    middle = share + z2 / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    scale = 1 + z2 / count
    return (middle - half) / scale, (middle + half) / scale


def tango(first_only: int, second_only: int, count: int) -> tuple[float, float]:
    """Return the score interval of the difference (first - second) of two shares on the same images.

    The interval is Tango's, Statistics in Medicine 17 (1998), 891-908. If the two networks differ on no image, it is +-
    z^2 / (count + z^2), while the normal interval would have width 0.

    Args:
        first_only, second_only: numbers of images that only the first or only the second network gets right.
        count: number of all images, at least 1.

    Returns:
        (low, high), both in -1..1.
    """
    mean = (first_only - second_only) / count

    def score(difference: float) -> float:
        return _score(first_only, second_only, count, difference)

    return _crossing(score, -1.0, mean, Z), _crossing(score, mean, 1.0, -Z)


def _score(first_only: int, second_only: int, count: int, difference: float) -> float:
    """Return the score statistic of a difference. It falls as the difference grows and is 0 at the observed one.

    Given the difference, it uses the most likely share of images that only the second network gets right.
    """
    a = 2.0 * count
    b = (2 * count - first_only + second_only) * difference - first_only - second_only
    c = -second_only * difference * (1.0 - difference)
    second_share = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    variance = count * (2.0 * second_share + difference * (1.0 - difference))
    away = first_only - second_only - count * difference
    return away / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, away) if away else 0.0


def _crossing(score: Callable[[float], float], low: float, high: float, value: float) -> float:
    """Return the difference at which a falling score has this value, by bisection."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) > value else (low, middle)
    return (low + high) / 2
