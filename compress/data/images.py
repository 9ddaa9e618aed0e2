"""One image: its header, its pixels, its size. Files are untrusted, so the header is checked before pixels are read."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from compress.data.formats.source import Limits
from compress.data.preprocessing import Preprocessing
from compress.errors import InvalidInput

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "RGBX")
UPRIGHT = 1
# The transposition that turns the pixels of each EXIF orientation upright. Orientation 1 is upright already, and
# orientations other than 1 to 8 are invalid.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset({5, 6, 7, 8})
# Errors that Pillow raises on damaged files; SyntaxError comes from its PNG reader.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# This is a second line of defence behind `_open`, for the whole process. By default, Pillow only warns about an image
# up to twice its limit.
Image.MAX_IMAGE_PIXELS = Limits().image_pixels
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Header:
    """The header of an image: height and width of the upright image, number of channels (1 or 3), EXIF orientation."""

    height: int
    width: int
    channels: int
    orientation: int = UPRIGHT


def read_header(data: bytes, where: str, limits: Limits) -> Header:
    """Read only the header.

    Raises:
        InvalidInput: the file is not an image of FORMATS or has too many pixels, several frames or 16 bits per channel.
    """
    with _open(data, where, limits) as image:
        if image.mode not in GREY_MODES + COLOUR_MODES:
            raise InvalidInput("image", image.mode, f"{where} has more than 8 bits per channel: convert it to 8 bits")
        orientation = _orientation(image)
        height, width = (image.width, image.height) if orientation in SIDEWAYS else (image.height, image.width)
        return Header(height, width, 1 if image.mode in GREY_MODES else 3, orientation)


def decode(data: bytes, where: str, channels: int, limits: Limits) -> NDArray[np.uint8]:
    """Decode one image and turn it upright by its EXIF orientation.

    Args:
        data: the bytes of a file that passed `read_header`.
        where: the name of the image in an error.
        channels: 1 (grey) or 3 (RGB). Alpha is dropped.
        limits: limits on the size of an image.

    Returns:
        (H, W, channels) uint8.

    Raises:
        InvalidInput: the pixels are damaged or truncated.
    """
    with _open(data, where, limits) as image:
        try:
            turn = TURNS.get(_orientation(image))  # Pillow checks this before it reads pixels, as in read_header
            upright = image if turn is None else image.transpose(turn)
            pixels = np.asarray(upright.convert("L" if channels == 1 else "RGB"))
        except _PILLOW_ERRORS as error:
            _refuse(where, error)
    return pixels[..., np.newaxis] if channels == 1 else pixels


def resize(image: NDArray[Any], preprocessing: Preprocessing) -> NDArray[Any]:
    """Resize an image to `preprocessing.size`, bilinear with antialiasing; do nothing if it has that size.

    `shorter` with a centred crop is one operation: the largest centred box of the wanted aspect is resized, so that
    there is no rounding between two steps.

    Args:
        image: (H, W, C) uint8 or float32.
        preprocessing: its size, resize and crop.

    Returns:
        (height, width, C) of the same dtype.
    """
    if preprocessing.size is None or image.shape[:2] == preprocessing.size:
        return image
    height, width = preprocessing.size
    box = _box(image.shape[0], image.shape[1], preprocessing)
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[..., channel])).resize(
                (width, height), Image.Resampling.BILINEAR, box
            )
        )
        for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=-1)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; UPRIGHT if there is none or the EXIF data cannot be read."""
    try:
        # Call the base class: the method of PNG files would read all pixels to look for EXIF data behind them.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except _PILLOW_ERRORS:
        return UPRIGHT
    return orientation if isinstance(orientation, int) and orientation in TURNS else UPRIGHT


def _box(height: int, width: int, preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) of the kept part of the original."""
    if preprocessing.resize == "stretch" or preprocessing.size is None:
        return (0, 0, width, height)
    scale = min(height / preprocessing.size[0], width / preprocessing.size[1])
    kept_height, kept_width = preprocessing.size[0] * scale, preprocessing.size[1] * scale
    top, left = (height - kept_height) / 2, (width - kept_width) / 2
    # Rounding must not move the box slightly outside the image: Pillow refuses that.
    return (max(left, 0), max(top, 0), min(left + kept_width, width), min(top + kept_height, height))


def _open(data: bytes, where: str, limits: Limits) -> Image.Image:
    if len(data) > limits.image_bytes:
        raise InvalidInput("image", len(data), f"{where} is larger than {limits.image_bytes} bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except _BOMBS as error:
        raise _bomb(where, limits, str(error)) from error
    except _PILLOW_ERRORS as error:
        _refuse(where, error)
    if image.width * image.height > limits.image_pixels:
        raise _bomb(where, limits, f"{image.width} x {image.height}")
    if getattr(image, "n_frames", 1) != 1:
        raise InvalidInput("image", where, f"{where} has more than one frame")
    return image


def _bomb(where: str, limits: Limits, seen: str) -> InvalidInput:
    return InvalidInput("image", seen, f"{where} has more than {limits.image_pixels} pixels (an image bomb)")


def _refuse(where: str, error: Exception) -> NoReturn:
    reason = str(error)
    if isinstance(error, UnidentifiedImageError):
        reason = f"not one of {', '.join(FORMATS)}"
    raise InvalidInput("image", where, f"{where} is not a readable image: {reason}") from error
