"""Means and variances of channels: those of float64, though the values stay float32."""

from __future__ import annotations

import numpy as np
import pytest
from compress_graphs import images, residual

from compress.errors import InvalidInput
from compress.graph.onnxruntime import run_onnxruntime
from compress.quantising.activations import channel_moments


@pytest.mark.parametrize("axis", [1, 3], ids=["first", "last"])
def test_moments_are_those_of_all_images_and_positions(axis: int) -> None:
    network, batch = residual(), images(20)
    seen = {"image": batch, **run_onnxruntime(network, batch, ("a2", "logits"))}
    axes = {"image": axis, "a2": axis, "logits": 1}
    for name, (mean, variance) in channel_moments(network, axes, batch, batch=7).items():
        exact = np.moveaxis(seen[name], axes[name], 0).reshape(seen[name].shape[axes[name]], -1).astype(np.float64)
        np.testing.assert_allclose(mean, exact.mean(1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variance, exact.var(1), rtol=1e-5)


def test_a_large_mean_hides_no_small_variance() -> None:
    batch = images(40)
    batch[:, 0] = 1000.0 + 0.1 * batch[:, 0]
    batch[:, 1] = np.linspace(2.0, 3.0, len(batch), dtype=np.float32)[:, None, None]
    batch[:, 2] = 0.1
    mean, variance = channel_moments(residual(), {"image": 1}, batch, batch=16)["image"]
    exact = batch.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance[:2], exact.var((0, 2, 3))[:2], rtol=1e-3)
    assert variance[2] < 1e-12, "a constant"


def test_no_images_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="at least one image"):
        channel_moments(residual(), {"image": 1}, images(0), batch=8)
