"""Preprocessing: turn stored pixels into the network's input, (pixels x scale - mean) / std in its layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compress.errors import InvalidInput

UINT8_SCALE = 1.0 / 255.0  # the default for uint8 pixels; float32 pixels are not scaled
ORDERS = ("RGB", "BGR")
RESIZES = ("shorter", "stretch")
CROPS = ("center",)
MAX_SIDE = 4096  # pixels
MAX_NUMBER = 1e30  # float32 ends at 3.4e38; this leaves room for the product of a few numbers
MIN_NUMBER = 1e-30  # smallest allowed value of numbers that must be above 0: float32 begins at 1.2e-38


@dataclass(frozen=True)
class Preprocessing:
    """The settings that turn an image into a network's input.

    Args:
        scale: factor for the pixels; None is 1/255 for uint8 and 1 for float32.
        mean: subtracted after scaling, one number or one for each channel, in the order of `order`.
        std: the last divisor, one number or one for each channel.
        order: the order of the channels in the network's input; data are stored RGB.
        size: (height, width) in pixels of the network's input; None leaves images as they are.
        resize: `shorter` keeps the aspect and covers `size`; `stretch` changes the aspect to that of `size`.
        crop: which part of an image that covers `size` is kept.

    Raises:
        InvalidInput: a setting is wrong; the error names the field (`preprocessing.std`) and the value seen.
    """

    scale: float | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: Literal["RGB", "BGR"] = "RGB"
    size: tuple[int, int] | None = None
    resize: Literal["shorter", "stretch"] = "shorter"
    crop: Literal["center"] = "center"

    def __post_init__(self) -> None:
        if self.scale is not None:
            _check_number("scale", self.scale, positive=True)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not values:
                raise _invalid(name, values, "one number, or one number for each channel")
            for value in values:
                _check_number(name, value, positive=name == "std")
        if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise _invalid("std", self.std, f"as many numbers as mean, which has {len(self.mean)}")
        self._check_quotients()
        _check_choice("order", self.order, ORDERS)
        _check_choice("resize", self.resize, RESIZES)
        _check_choice("crop", self.crop, CROPS)
        _check_size(self.size)

    def _check_quotients(self) -> None:
        """Check that float32 can represent scale / std and mean / std, and not only mean, std and scale."""
        channels = max(len(self.mean), len(self.std))
        means, stds = (values * channels if len(values) == 1 else values for values in (self.mean, self.std))
        for mean, std in zip(means, stds, strict=True):
            factor = (1.0 if self.scale is None else self.scale) / std
            if not MIN_NUMBER <= factor <= MAX_NUMBER or abs(mean) / std > MAX_NUMBER:
                raise _invalid("std", std, f"such that scale / std and mean / std are within {MAX_NUMBER:g}")

    @classmethod
    def from_json(cls, data: object) -> Preprocessing:
        """Read the JSON object of the REST contract; null takes a field's default.

        Raises:
            InvalidInput: a key is unknown or a value is wrong.
        """
        if not isinstance(data, Mapping):
            raise InvalidInput("preprocessing", data, "preprocessing must be a JSON object")
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {}
        for name, value in data.items():
            if name not in known:
                raise InvalidInput(
                    f"preprocessing.{name}",
                    value,
                    f"no such preprocessing setting; the settings are {', '.join(sorted(known))}",
                )
            if value is not None:
                given[name] = _from_json_value(name, value)
        return cls(**given)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the REST contract, with every field."""
        return {
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "order": self.order,
            "size": None if self.size is None else list(self.size),
            "resize": self.resize,
            "crop": self.crop,
        }

    def scale_of(self, dtype: np.dtype[Any]) -> float:
        """Return the factor for pixels of this dtype (uint8 or float32)."""
        if self.scale is not None:
            return self.scale
        return UINT8_SCALE if dtype == np.uint8 else 1.0

    def check_channels(self, channels: int) -> None:
        """Raise InvalidInput if mean, std or order do not fit images of this many channels."""
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, channels):
                raise _invalid(name, values, f"1 or {channels} numbers for images of {channels} channel(s)")
        if self.order == "BGR" and channels != 3:
            raise _invalid("order", self.order, f"RGB for images of {channels} channel(s)")


def preprocess(images: NDArray[Any], preprocessing: Preprocessing, layout: str = "NCHW") -> NDArray[np.float32]:
    """Scale, normalise and transpose images that already have the wanted size.

    Resizing is done once, when data are loaded (`compress.data.decoding`), not here.

    Args:
        images: (N, H, W, C) uint8 or float32, RGB.
        preprocessing: the preprocessing that the network was trained with.
        layout: NCHW or NHWC, see `compress.importing.input_layout`.

    Returns:
        (N, C, H, W) or (N, H, W, C) float32, C-contiguous: (pixels x scale - mean) / std.

    Raises:
        InvalidInput: images have another rank, dtype or size, or mean and std do not fit their channels.
    """
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
        seen = f"{images.dtype} {images.shape}"
        raise InvalidInput("images", seen, "images must be (N, H, W, C), uint8 or float32")
    _, height, width, channels = images.shape
    if preprocessing.size is not None and (height, width) != preprocessing.size:
        raise InvalidInput("images", (height, width), f"images were not resized to {preprocessing.size}")
    preprocessing.check_channels(channels)
    ordered = images[..., ::-1] if preprocessing.order == "BGR" else images
    std = np.asarray(preprocessing.std, np.float64)
    factor = np.broadcast_to(preprocessing.scale_of(images.dtype) / std, channels)
    offset = np.broadcast_to(-np.asarray(preprocessing.mean, np.float64) / std, channels)
    first = layout == "NCHW"
    laid_out = ordered.transpose(0, 3, 1, 2) if first else ordered
    columns = (channels, 1, 1) if first else (channels,)
    result = np.empty(laid_out.shape, np.float32)
    np.multiply(laid_out, factor.astype(np.float32).reshape(columns), out=result)
    if offset.any():
        result += offset.astype(np.float32).reshape(columns)
    return result


def _from_json_value(name: str, value: object) -> object:
    if name in ("mean", "std") and isinstance(value, int | float):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _invalid(name: str, value: object, wanted: str) -> InvalidInput:
    return InvalidInput(f"preprocessing.{name}", value, f"{name} must be {wanted}")


def _check_number(name: str, value: object, positive: bool) -> None:
    # A comparison, unlike math.isfinite, also works for integers beyond a float's range, and is false for NaN.
    number = isinstance(value, int | float) and not isinstance(value, bool) and -MAX_NUMBER < value < MAX_NUMBER
    if not number or (positive and value < MIN_NUMBER):  # type: ignore[operator]  # it is a number, checked above
        least = f"from {MIN_NUMBER:g}" if positive else f"above {-MAX_NUMBER:g}"
        raise _invalid(name, value, f"numbers {least} and below {MAX_NUMBER:g}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise _invalid(name, value, "one of " + ", ".join(choices))


def _check_size(size: object) -> None:
    if size is None:
        return
    sides = size if isinstance(size, tuple) and len(size) == 2 else (None,)
    if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        raise _invalid("size", size, f"[height, width] in pixels, each 1..{MAX_SIDE}")
