"""Activations: values of a network's inner tensors for real images, computed in onnxruntime batch by batch."""

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
    """Yield the tensors' values (batch, ...), batch by batch, from one onnxruntime session.

    Args:
        tensors: activations, or the network's input.
        images: (N, *input_shape) float32.
        batch: images per run; bounds the memory.

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
    """Return mean and variance, each (C,), of the channels of each tensor over images and positions.

    Args:
        tensors: name -> channel axis.

    Raises:
        InvalidInput: no images.
    """
    count = dict.fromkeys(tensors, 0)
    total = {name: np.zeros(network.shape(name)[axis]) for name, axis in tensors.items()}
    square = {name: np.zeros(network.shape(name)[axis]) for name, axis in tensors.items()}
    for values in activations(network, list(tensors), images, batch):
        for name, value in values.items():
            rows = np.moveaxis(value, tensors[name], 1)
            rows = rows.reshape(*rows.shape[:2], -1)
            # Around the mean of its image, a value needs no float64, which would take several times as long.
            mean = rows.mean(2, dtype=np.promote_types(rows.dtype, np.float32))
            rows = rows - mean[:, :, None]
            within, mean = np.einsum("ncp,ncp->nc", rows, rows), mean.astype(np.float64)
            count[name] += rows.shape[0] * rows.shape[2]
            total[name] += rows.shape[2] * mean.sum(0)
            square[name] += within.sum(0, dtype=np.float64) + rows.shape[2] * np.square(mean).sum(0)
    means = {name: total[name] / count[name] for name in tensors}
    return {name: (mean, np.maximum(square[name] / count[name] - mean**2, 0.0)) for name, mean in means.items()}
