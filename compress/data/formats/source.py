"""Source: the interface of every format. It gives all labels at once and streams images, to bound memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "validation", "test")
NO_LABEL = -1  # Hugging Face's mark for rows whose labels are withheld
GIB = 1024**3


@dataclass(frozen=True)
class Limits:
    """Limits on a data set. A data set that exceeds them is refused.

    Args:
        members: number of entries of an archive.
        total_bytes: size of everything in an archive or a Parquet file, unpacked.
        ratio: unpacked size divided by packed size, for archives that unpack to more than `ratio_from_bytes`.
        ratio_from_bytes: below this size, a high ratio is normal for regular data (sorted labels pack 1000:1).
        image_bytes: size of one encoded image.
        image_pixels: height x width of one image, read from its header before decoding.
        decoded_bytes: size of all images as pixels.
    """

    members: int = 200_000
    total_bytes: int = 8 * GIB
    ratio: float = 100.0
    ratio_from_bytes: int = 16 * 1024**2
    image_bytes: int = 64 * 1024**2
    image_pixels: int = 25_000_000
    decoded_bytes: int = 32 * GIB


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one part as the file has them: any dtype and shape, checked by `compress.data.checks`.

    Args:
        values: the array.
        where: the array's name in an error (`y_train`, `label`).
    """

    values: NDArray[Any]
    where: str


@dataclass(frozen=True)
class Item:
    """One encoded image.

    Args:
        part: one of PARTS.
        where: the image's name in an error (a member's name, a row's number).
        data: the bytes of a PNG, JPEG, WebP or BMP file.
    """

    part: str
    where: str
    data: bytes


class Source(Protocol):
    """A data set as read from a file; missing parts are not keys of `labels`."""

    @property
    def labels(self) -> Mapping[str, Labels]: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...


@runtime_checkable
class EncodedSource(Source, Protocol):
    """A data set whose images are files: Parquet and zip."""

    def items(self) -> Iterator[Item]:
        """Yield every image, within a part in the order of its labels. The method may be called more than once."""
        ...


@runtime_checkable
class ArraySource(Source, Protocol):
    """A data set whose images are arrays: .npz."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, int, int, int]]:
        """Shape (N, H, W, C) of each part; H, W and C are the same for all parts."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of all parts, uint8 or float32."""
        ...

    def blocks(self, part: str) -> Iterator[NDArray[Any]]:
        """Yield the images of a part in order, as (n, H, W, C) arrays of a few MB."""
        ...
