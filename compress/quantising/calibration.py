"""Calibration: find the range of every activation that is to be quantised, from real images in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compress.errors import InvalidInput
from compress.network import Network
from compress.quantising.activations import activations

Clipping: TypeAlias = Literal["minmax", "percentile", "mse"]
"""Choice of a range: all values seen, all except the rarest values, or the range with the least quantisation error."""

Histogram: TypeAlias = NDArray[np.int64]
BINS = 2048
LEVELS = 256
SHRINKS = np.linspace(0.3, 1.0, 71)


@dataclass(frozen=True)
class Range:
    """The interval of real numbers that the 256 levels of a tensor span; it always contains zero."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= 0.0 <= self.high):
            raise ValueError(f"a range must be finite and contain zero, not [{self.low}, {self.high}]")

    def clipped(self, low: float, high: float) -> Range:
        """Return the part of the range inside [low, high], extended to contain zero."""
        return Range(min(max(self.low, low), 0.0), max(min(self.high, high), 0.0))


def calibrate(
    network: Network,
    tensors: Sequence[str],
    images: NDArray[np.float32],
    clipping: Clipping = "minmax",
    percentile: float = 99.99,
    batch: int = 64,
) -> dict[str, Range]:
    """Return the range of each tensor over the images, from the network's own fp32 activations.

    Args:
        tensors: activations or inputs of the network.
        images: (N, *input_shape) float32, real data; a few hundred are enough.
        clipping: `percentile` cuts half of 100 - percentile off each side; `mse` keeps the share of the range, the same
            on both sides, that has the least quantisation error over the histogram.
        batch: images per run; bounds the memory.

    Raises:
        InvalidInput: there are no images, or activations are not finite.
    """
    wanted = list(dict.fromkeys(tensors))
    ranges = _extremes(network, wanted, images, batch)
    if clipping == "minmax":
        return ranges
    counts = {name: np.zeros(BINS, np.int64) for name in wanted}
    for values in activations(network, wanted, images, batch):
        for name, value in values.items():
            counts[name] += np.histogram(value, BINS, (ranges[name].low, _top(ranges[name])))[0]
    draw = _percentile if clipping == "percentile" else _least_error
    return {name: draw(ranges[name], counts[name], percentile) for name in wanted}


def _extremes(network: Network, tensors: list[str], images: NDArray[np.float32], batch: int) -> dict[str, Range]:
    lows = dict.fromkeys(tensors, 0.0)
    highs = dict.fromkeys(tensors, 0.0)
    for values in activations(network, tensors, images, batch):
        for name, value in values.items():
            low, high = float(value.min()), float(value.max())
            if not np.isfinite(low + high):
                raise InvalidInput("images", name, f"tensor {name!r} has NaN or infinite values in calibration")
            lows[name], highs[name] = min(lows[name], low), max(highs[name], high)
    return {name: Range(lows[name], highs[name]) for name in tensors}


def _top(seen: Range) -> float:
    """Return the upper edge of the histogram. It is above 0 even for a tensor of zeros: bins need some width."""
    return seen.high if seen.high > seen.low else seen.low + 1.0


def _percentile(seen: Range, counts: Histogram, percentile: float) -> Range:
    tail = (100.0 - percentile) / 200.0
    shares = np.cumsum(counts) / counts.sum()
    edges = np.linspace(seen.low, _top(seen), BINS + 1)
    low = edges[int(np.searchsorted(shares, tail, side="right"))]
    high = edges[min(int(np.searchsorted(shares, 1.0 - tail)) + 1, BINS)]
    return seen.clipped(float(low), float(high))


def _least_error(seen: Range, counts: Histogram, percentile: float) -> Range:
    edges = np.linspace(seen.low, _top(seen), BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    errors = [float(counts @ _errors(centres, seen.low * share, seen.high * share)) for share in SHRINKS]
    # If several shares have the same error, take the largest, so that a dead tensor keeps its range.
    best = SHRINKS[len(SHRINKS) - 1 - int(np.argmin(errors[::-1]))]
    return Range(seen.low * float(best), seen.high * float(best))


def _errors(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return the squared error of each value when [low, high] is quantised to 256 levels."""
    step = (high - low) / (LEVELS - 1) or 1.0
    squared: NDArray[np.float64] = (np.clip(np.round(values / step) * step, low, high) - values) ** 2
    return squared
