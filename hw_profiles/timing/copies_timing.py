"""Slope timing: the latency of one block, from models with few and with many copies of it.

(T[high] - T[low]) / (high - low) excludes whatever both models pay once: the call, the producers, the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.ops import Op
from hw_profiles.runtimes import Progress, Runtime
from hw_profiles.timing.file_timing import time_models
from hw_profiles.timing.protocol import QUIET_PERCENTILE, BurstProtocol, Failure, Sample, Timing
from hw_profiles.timing.timing_model import timing_model

COPIES = (1, 4)
# Number of resamples used to estimate the standard deviation of a slope; with 200, the estimate is accurate to a
# twentieth.
RESAMPLES = 200


def slope_models(op: Op) -> tuple[bytes, bytes]:
    """Return the serialised timing models of `op` with few and with many copies.

    Raises InvalidInput if `timing_model` does.
    """
    low, high = (timing_model(op, copies).SerializeToString() for copies in COPIES)
    return low, high


def slope_timing(low: Sample, high: Sample, copies: tuple[int, int] = COPIES) -> Timing:
    """Return the timing of one block from the samples of its two models.

    Each statistic of the block is the slope between the models' values of this statistic. `extra` has `sigma_us`, the
    bootstrap standard deviation of quiet_us, and `suspect` if either sample was suspect or the slope is below zero by
    more than its noise. Raises InvalidInput if `copies` are not ascending.
    """
    span = copies[1] - copies[0]
    if span < 1:
        raise InvalidInput("copies", copies, "must rise from few to many")
    few, many = low.timing(), high.timing()
    sigma_us = float(np.hypot(_sigma_us(low), _sigma_us(high))) / span
    quiet_us = (many.quiet_us - few.quiet_us) / span
    extra = {**low.extra, **high.extra, "sigma_us": sigma_us, "call_us": few.quiet_us}
    if quiet_us < -3 * sigma_us:
        extra["suspect"] = "negative_slope"
    return Timing(
        quiet_us=quiet_us,
        p50_us=(many.p50_us - few.p50_us) / span,
        p95_us=(many.p95_us - few.p95_us) / span,
        split_half=max(few.split_half, many.split_half),
        bursts=min(few.bursts, many.bursts),
        extra=extra,
    )


def time_ops(
    runtime: Runtime,
    ops: Sequence[Op],
    device: DeviceConfig,
    protocol: BurstProtocol,
    progress: Progress | None = None,
) -> Mapping[str, Timing | Failure]:
    """Return slope timings of `ops` by key, with all models of all ops interleaved in one batch.

    An op that cannot be modelled, loaded or run is a Failure. Keep a batch to about a hundred ops, because every model
    stays open.
    """
    results: dict[str, Timing | Failure] = {}
    models: dict[str, bytes] = {}
    for op in ops:
        try:
            for copies, model in zip(COPIES, slope_models(op), strict=True):
                models[f"{op.key}:{copies}"] = model
        except InvalidInput as error:
            results[op.key] = Failure(op.key, str(error), "model")
    timed = time_models(runtime, models, device, protocol, progress)
    for op in ops:
        if op.key not in results:
            low, high = (timed[f"{op.key}:{copies}"] for copies in COPIES)
            results[op.key] = _slope_or_failure(op.key, low, high)
    return results


def _slope_or_failure(key: str, low: Sample | Failure, high: Sample | Failure) -> Timing | Failure:
    for part in (low, high):
        if isinstance(part, Failure):
            return Failure(key, part.reason, part.kind)
    assert isinstance(low, Sample)
    assert isinstance(high, Sample)
    return slope_timing(low, high)


def _sigma_us(sample: Sample) -> float:
    """Return the bootstrap standard deviation of the quiet latency."""
    minima = np.asarray(sample.minima_us)
    rounds = np.random.default_rng(0).integers(0, len(minima), (RESAMPLES, len(minima)))
    return float(np.percentile(minima[rounds], QUIET_PERCENTILE, axis=1).std())
