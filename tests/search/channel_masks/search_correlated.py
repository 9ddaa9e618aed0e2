"""Gram matrices as a trained layer gives them: correlated features behind a ReLU, read by correlated weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def layer(width: int, seed: int) -> tuple[Array, Array]:
    """Return centred features (samples, width) and weights (outputs, width), each with a few common factors."""
    rng = np.random.default_rng([seed, width])
    rank = max(1, width // 4)
    factors = rng.standard_normal((2000, rank))
    features = np.maximum(factors @ rng.standard_normal((rank, width)) + 0.5 * rng.standard_normal((2000, width)), 0.0)
    common = rng.standard_normal((2 * width, rank)) @ rng.standard_normal((rank, width)) / rank**0.5
    weights = common + 0.5 * rng.standard_normal((2 * width, width))
    return features - features.mean(axis=0), weights


def gram_of(features: Array, weights: Array) -> Array:
    """Return G of one reader, as a share of its outputs' variance."""
    covariance = features.T @ features / len(features)
    found = (weights.T @ weights) * covariance
    return np.asarray(found / found.sum())


def gram(width: int, seed: int) -> tuple[Array, Array]:
    """Return G and each unit's L1 importance."""
    features, weights = layer(width, seed)
    return gram_of(features, weights), np.abs(weights).sum(axis=0) * features.std(axis=0)
