"""Checks of labels and pixels before anything is trained on them. Each error names the place and the value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.formats.source import NO_LABEL, Labels
from compress.data.preprocessing import Preprocessing
from compress.errors import InvalidInput

MAX_CLASSES = 100_000
_ONE_HOT = "; if they are one-hot, convert them with .argmax(axis=1)"


def check_labels(labels: Labels, images: int, part: str) -> NDArray[np.int64]:
    """Check the labels of one part and return them as int64.

    Args:
        labels: (N,) or (N, 1), of any dtype.
        images: number of images in the part.
        part: the name of the part.

    Raises:
        InvalidInput: the part is empty, the counts differ, or a label is not an integer, is negative or is far too
            large.
    """
    values = labels.values
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InvalidInput(labels.where, values.shape, f"labels of {part} must be one class number per image{_ONE_HOT}")
    if len(values) != images:
        raise InvalidInput(labels.where, len(values), f"{part} has {images} images and {len(values)} labels")
    if images == 0:
        raise InvalidInput(labels.where, 0, f"{part} is empty")
    _check_integers(values, part, labels.where)
    check_classes(values, MAX_CLASSES, part, labels.where)
    return values.astype(np.int64)


def is_unlabelled(labels: Labels) -> bool:
    """Return whether every label is NO_LABEL, as in a benchmark's test part whose labels are withheld."""
    values = labels.values
    return values.dtype.kind in "iuf" and values.size > 0 and bool((values == NO_LABEL).all())


def check_classes(labels: NDArray[Any], classes: int, part: str, where: str) -> None:
    """Raise InvalidInput if a label is not one of 0..classes - 1.

    Args:
        labels: (N,) integers.
        classes: number of classes.
        part: the part that the labels belong to.
        where: the field of the error, i.e. the name that the file gives the labels.
    """
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        first = int(labels[outside[0]])
        none = f" ({NO_LABEL} or null marks images with no label: leave them out)" if first == NO_LABEL else ""
        raise InvalidInput(
            where,
            first,
            f"{len(outside)} labels of {part} are outside 0..{classes - 1}{none}, the first at index {outside[0]}",
        )


def check_fits(
    image_shape: tuple[int, int, int] | None,
    preprocessing: Preprocessing,
    input_shape: Sequence[int],
) -> None:
    """Check that the images of a data set fit a network.

    Args:
        image_shape: (H, W, C) of the data; None if images differ in size.
        preprocessing: the network's preprocessing.
        input_shape: (C, H, W) of the network.

    Raises:
        InvalidInput: the images do not fit; the field is `dataset` or `preprocessing.*`, and the message has both
            shapes.
    """
    channels, *size = input_shape
    if image_shape is None and preprocessing.size is None:
        raise InvalidInput(
            "preprocessing.size",
            None,
            f"images differ in size: set `size` in the model's preprocessing, for this model {size}",
        )
    height_width = list(preprocessing.size or (image_shape or ())[:2])
    if height_width != size:
        raise InvalidInput(
            "dataset",
            height_width,
            f"images of {height_width} do not fit the model's input of {size} (height, width): "
            f"upload the model with preprocessing.size {size} to have them resized",
        )
    if image_shape is not None and image_shape[2] != channels:
        seen, wanted = _channels(image_shape[2]), _channels(channels)
        raise InvalidInput(
            "dataset",
            list(image_shape),
            f"the images have {seen} and the model takes {wanted}: convert the images or take another model",
        )
    preprocessing.check_channels(channels)


def _channels(count: int) -> str:
    return {1: "1 channel (grey)", 3: "3 channels (colour)"}.get(count, f"{count} channels")


class PixelCheck:
    """A counter of the pixels of a part that are not finite. It is given the pixels block by block.

    Args:
        part: the name of the part.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._images = 0
        self._wrong = 0
        self._first: tuple[int, ...] | None = None
        self.lowest, self.highest = np.inf, -np.inf

    def add(self, block: NDArray[Any]) -> None:
        """Check the next (n, H, W, C) images of the part."""
        finite = np.isfinite(block) if block.dtype.kind == "f" else None
        if finite is not None and not finite.all():
            index = np.argwhere(~finite)
            self._wrong += len(index)
            if self._first is None:
                self._first = (self._images + int(index[0, 0]), *(int(step) for step in index[0, 1:]))
        elif block.size:
            self.lowest = min(self.lowest, float(block.min()))
            self.highest = max(self.highest, float(block.max()))
        self._images += len(block)

    def finish(self) -> None:
        """Raise InvalidInput if any pixel was NaN or infinite; the message has the count and the first place."""
        if self._first is not None:
            raise InvalidInput(
                f"images of {self._part}",
                self._first,
                f"{self._wrong} pixels of {self._part} are NaN or infinite, the first at "
                f"(image, row, column, channel) {self._first}",
            )

    def warnings(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        """Return a warning if the dtype looks wrong for these pixels, since the default scale depends on it."""
        seen = f"pixels of {self._part} are {dtype} from {self.lowest:g} to {self.highest:g}"
        if dtype == np.float32 and self.lowest >= 0 and self.highest > 2:
            return (f"{seen}: float32 is not divided by 255 unless preprocessing.scale says so",)
        if dtype == np.uint8 and self.highest <= 1:
            return (f"{seen}: uint8 is divided by 255 unless preprocessing.scale says otherwise",)
        return ()


def _check_integers(values: NDArray[Any], part: str, where: str) -> None:
    if values.dtype.kind in "iu":
        return
    shown: object = str(values.dtype)
    if values.dtype.kind == "f":
        broken = np.flatnonzero(values != np.floor(values))
        shown = f"{values[broken[0]]} at index {broken[0]}" if len(broken) else shown
    whole = values.dtype.kind == "f" and shown == str(values.dtype)
    advice = ': convert them with .astype("int64")' if whole else ""
    raise InvalidInput(where, shown, f"labels of {part} must be integers from 0{advice}")
