"""Preprocessed: the images of a whole part of a data set in the form that a network takes, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.importing.input_layout import Layout

BATCH = 128


@dataclass(frozen=True)
class Preprocessed:
    """Images that read like an array (N, *input_shape) of float32 by slices of the first axis.

    Images are made only when a slice is read, because a part may be a memory map of many gigabytes. If `mirrored`, left
    and right are exchanged; `layout` is the layout of the network's input.
    """

    part: Part
    preprocessing: Preprocessing
    mirrored: bool = False
    layout: Layout = "NCHW"

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        images = preprocess(np.asarray(self.part.images[rows]), self.preprocessing, self.layout)
        return np.ascontiguousarray(np.flip(images, self.layout.index("W"))) if self.mirrored else images

    def mirror(self) -> Preprocessed:
        """Return the same images mirrored left to right."""
        return replace(self, mirrored=not self.mirrored)

    def batches(self, count: int = BATCH) -> Iterator[NDArray[np.float32]]:
        """Yield all images in order, at most `count` at a time."""
        for start in range(0, len(self), count):
            yield self[start : start + count]
