"""Augment: shift and mirror the images of a batch at random, on the stored pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from compress.training.recipe import Augment

SHARE = 8  # a shift is at most side / SHARE, e.g. 4 pixels for a side of 32, as is usual on CIFAR


def augmented(images: NDArray[Any], augment: Augment, rng: np.random.Generator) -> NDArray[Any]:
    """Return each image shifted (the gap is zeros) and, with `crop_flip`, mirrored with probability one half.

    Args:
        images: (N, H, W, C), any dtype; not changed.

    Returns:
        (N, H, W, C) of the same dtype; it is a view of a copy whose memory layout is (N, C, H, W), as networks need it.
    """
    if augment == "none":
        return images
    count, height, width, _ = images.shape
    up, left = height // SHARE, width // SHARE
    padded = np.pad(images, ((0, 0), (up, up), (left, left), (0, 0)))
    windows = sliding_window_view(padded, (height, width), axis=(1, 2))
    rows = rng.integers(0, 2 * up + 1, count)
    columns = rng.integers(0, 2 * left + 1, count)
    shifted: NDArray[Any] = windows[np.arange(count), rows, columns]
    if augment == "crop_flip":
        mirrored = rng.random(count) < 0.5
        shifted[mirrored] = shifted[mirrored, :, :, ::-1]
    return shifted.transpose(0, 2, 3, 1)
