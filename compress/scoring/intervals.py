"""Intervals: 95 % intervals of shares of images that are classified right."""

from __future__ import annotations

import math
from collections.abc import Callable

Z = 1.959964
_HALVINGS = 60


def wilson(right: int, count: int) -> tuple[float, float]:
    """Of a share (Wilson 1927): also sensible at shares near 1. `count` is at least 1.

    Returns:
        (low, high), both in 0..1.
    """
    share, z2 = right / count, Z * Z
    middle = share + z2 / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    scale = 1 + z2 / count
    return (middle - half) / scale, (middle + half) / scale


def tango(first_only: int, second_only: int, count: int) -> tuple[float, float]:
    """Of the difference of two shares, first - second, that were counted on the same images: the score interval of
    Tango, Statistics in Medicine 17 (1998), 891-908. Without an image on which the two differ it is
    +- z^2 / (count + z^2), where the normal interval would be nothing wide.

    Args:
        first_only, second_only: images that the first alone, and the second alone, gets right.
        count: all images, at least 1.

    Returns:
        (low, high), both in -1..1.
    """
    mean = (first_only - second_only) / count

    def score(difference: float) -> float:
        return _score(first_only, second_only, count, difference)

    return _crossing(score, -1.0, mean, Z), _crossing(score, mean, 1.0, -Z)


def _score(first_only: int, second_only: int, count: int, difference: float) -> float:
    """Falls as the difference grows; 0 at the one that was seen. The share of images that the second alone gets right
    is the most likely one under the difference.
    """
    a = 2.0 * count
    b = (2 * count - first_only + second_only) * difference - first_only - second_only
    c = -second_only * difference * (1.0 - difference)
    second_share = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    variance = count * (2.0 * second_share + difference * (1.0 - difference))
    away = first_only - second_only - count * difference
    return away / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, away) if away else 0.0


def _crossing(score: Callable[[float], float], low: float, high: float, value: float) -> float:
    """Where a falling score takes this value, by bisection."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) > value else (low, middle)
    return (low + high) / 2
