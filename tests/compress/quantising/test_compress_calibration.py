"""Ranges of activations."""

from __future__ import annotations

import numpy as np
import pytest
from compress_graphs import images, residual

from compress.errors import InvalidInput
from compress.graph.onnxruntime import run_onnxruntime
from compress.quantising.calibration import Range, calibrate

TENSORS = ("image", "stem_relu", "a2", "logits")


def test_minmax_is_what_was_seen_and_holds_zero() -> None:
    network, batch = residual(), images(20)
    seen = {"image": batch, **run_onnxruntime(network, batch, TENSORS[1:])}
    for name, found in calibrate(network, TENSORS, batch, batch=7).items():
        assert found.low == pytest.approx(min(float(seen[name].min()), 0.0), rel=1e-5)
        assert found.high == pytest.approx(max(float(seen[name].max()), 0.0), rel=1e-5)


def quantised(values: np.ndarray, found: Range) -> np.ndarray:
    step = (found.high - found.low) / 255
    return np.clip(np.round(values / step) * step, found.low, found.high)


def test_a_percentile_cuts_a_lone_spike_off() -> None:
    batch = images(40)
    batch[3, 0, 0, 0] = 500.0
    found = calibrate(residual(), ("image",), batch, "percentile", percentile=99.9)["image"]
    assert 1.0 < found.high < 10.0
    assert found.low == pytest.approx(float(batch.min()), rel=0.1)


def test_least_error_beats_the_whole_range_on_heavy_tails() -> None:
    batch = images(40) ** 5
    whole, least = (calibrate(residual(), ("image",), batch, clipping)["image"] for clipping in ("minmax", "mse"))
    errors = [float(np.mean((quantised(batch, found) - batch) ** 2)) for found in (whole, least)]
    assert least.high < whole.high
    assert errors[1] < errors[0]


def test_values_that_are_not_finite_are_named() -> None:
    batch = images(4)
    batch[0, 0, 0, 0] = np.nan
    with pytest.raises(InvalidInput, match="NaN or infinite") as caught:
        calibrate(residual(), ("image",), batch)
    assert caught.value.value == "image"


def test_no_images_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="at least one image"):
        calibrate(residual(), ("image",), images(0))


def test_a_range_holds_zero() -> None:
    with pytest.raises(ValueError, match="contain zero"):
        Range(1.0, 2.0)
    assert Range(-1.0, 2.0).clipped(0.0, np.inf) == Range(0.0, 2.0)
