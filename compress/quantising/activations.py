"""Activations: inner tensors of a network over real images, from onnxruntime, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compress.errors import InvalidInput
from compress.graph.onnxruntime import session
from compress.network import Array, Network

Vector = NDArray[np.float64]


def activations(
    network: Network, tensors: Sequence[str], images: NDArray[np.float32], batch: int
) -> Iterator[Mapping[str, Array]]:
    """The tensors' values (batch, ...), batch by batch, from one onnxruntime session.

    Args:
        tensors: activations, or the network's input.
        images: (N, *input_shape) float32.
        batch: images per run; what bounds the memory.

    Raises:
        InvalidInput: no images.
    """
    if not len(images):
        raise InvalidInput("images", 0, "at least one image is needed")
    inner = {name: network.types[name] for name in tensors if name not in network.inputs}
    runner = session(replace(network, outputs={**network.outputs, **inner}).save()) if inner else None
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        values: dict[str, Array] = {name: part for name in tensors if name in network.inputs}
        if runner is not None:
            values |= zip(inner, runner.run(list(inner), {network.input_name: part}), strict=True)
        yield values


def channel_moments(
    network: Network, tensors: Mapping[str, int], images: NDArray[np.float32], batch: int
) -> dict[str, tuple[Vector, Vector]]:
    """Mean and variance of each channel of each tensor over images and positions, each (C,).

    Args:
        tensors: their names, and the axis of each that its channels lie on.

    Raises:
        InvalidInput: no images.
    """
    count = dict.fromkeys(tensors, 0)
    total = {name: np.zeros(network.shape(name)[axis]) for name, axis in tensors.items()}
    square = {name: np.zeros(network.shape(name)[axis]) for name, axis in tensors.items()}
    for values in activations(network, list(tensors), images, batch):
        for name, value in values.items():
            rows = np.moveaxis(value, tensors[name], 0).reshape(value.shape[tensors[name]], -1)
            count[name] += rows.shape[1]
            total[name] += rows.sum(1, dtype=np.float64)
            square[name] += np.square(rows, dtype=np.float64).sum(1)
    means = {name: total[name] / count[name] for name in tensors}
    return {name: (mean, np.maximum(square[name] / count[name] - mean**2, 0.0)) for name, mean in means.items()}
