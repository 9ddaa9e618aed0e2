"""Layout: find which axis of an image array is which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import InvalidInput

LAYOUTS = ("NHW", "NHWC", "NCHW")
CHANNELS = (1, 3)  # the channel counts that images may have if no model's input gives another count


def resolve_layout(shape: Sequence[int], layout: str | None, input_shape: Sequence[int] | None, field: str) -> str:
    """Return the layout, one of LAYOUTS, of an array of this shape.

    Args:
        shape: the array's shape, with the batch first.
        layout: the user's choice, or None.
        input_shape: (C, H, W) of the model that the data are for, or None.
        field: the name of the array in an error.

    Raises:
        InvalidInput: the shape cannot be a shape of images, contradicts `layout`, or is ambiguous (field `layout`).
    """
    if layout is not None and layout not in LAYOUTS:
        raise InvalidInput("layout", layout, f"layout must be one of {', '.join(LAYOUTS)}")
    if layout is not None and len(layout) != len(shape):
        raise InvalidInput("layout", layout, f"{field} has {len(shape)} axes, which is not {layout}")
    if len(shape) not in (3, 4):
        raise InvalidInput(
            field,
            tuple(shape),
            f"{field} cannot be images: its shape is {tuple(shape)}, expected (N, H, W), (N, H, W, C) or (N, C, H, W)",
        )
    if layout is not None:
        return layout
    return "NHW" if len(shape) == 3 else _channels_axis(shape, input_shape)


def nhwc_shape(shape: Sequence[int], layout: str) -> tuple[int, int, int, int]:
    """Return the shape (N, H, W, C) of an array of this shape and layout."""
    if layout == "NHW":
        return (shape[0], shape[1], shape[2], 1)
    if layout == "NCHW":
        return (shape[0], shape[2], shape[3], shape[1])
    return (shape[0], shape[1], shape[2], shape[3])


def to_nhwc(images: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return a view of the images as (N, H, W, C)."""
    if layout == "NHW":
        return images[..., np.newaxis]
    return images.transpose(0, 2, 3, 1) if layout == "NCHW" else images


def _channels_axis(shape: Sequence[int], input_shape: Sequence[int] | None) -> str:
    if input_shape is not None:
        wanted = tuple(input_shape)
        fits = [name for name in ("NHWC", "NCHW") if _chw(shape, name) == wanted]
        if not fits:  # the size differs: only the channels decide, since images are resized later
            fits = [name for name in ("NHWC", "NCHW") if _chw(shape, name)[0] == wanted[0]]
    else:
        fits = [name for name in ("NHWC", "NCHW") if _chw(shape, name)[0] in CHANNELS]
    if len(fits) != 1:
        reading = "both NHWC and NCHW" if fits else "neither NHWC nor NCHW"
        raise InvalidInput(
            "layout",
            tuple(shape[1:]),
            f"images of shape {tuple(shape[1:])} fit {reading}: say which layout they have",
        )
    return fits[0]


def _chw(shape: Sequence[int], layout: str) -> tuple[int, int, int]:
    _, height, width, channels = nhwc_shape(shape, layout)
    return (channels, height, width)
