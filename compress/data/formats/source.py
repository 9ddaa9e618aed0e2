"""What every format gives: labels at once, and images as a stream, so that memory stays flat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "validation", "test")
NO_LABEL = -1  # as Hugging Face marks rows whose labels are kept back
GIB = 1024**3


@dataclass(frozen=True)
class Limits:
    """What a data set may cost before it is refused.

    Args:
        members: entries of an archive.
        total_bytes: everything in an archive or a Parquet file, unpacked.
        ratio: unpacked over packed size, for archives that unpack to more than `ratio_from_bytes`.
        ratio_from_bytes: below this size a high ratio is only regular data (sorted labels pack 1000:1).
        image_bytes: one encoded image.
        image_pixels: height x width of one image, read from its header before anything is decoded.
        decoded_bytes: all images as pixels.
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
        where: what to call it in an error (`y_train`, `label`).
    """

    values: NDArray[Any]
    where: str


@dataclass(frozen=True)
class Item:
    """One encoded image.

    Args:
        part: one of PARTS.
        where: what to call it in an error (a member's name, a row's number).
        data: the bytes of a PNG, JPEG, WebP or BMP file.
    """

    part: str
    where: str
    data: bytes


class Source(Protocol):
    """A data set as a file has it; parts that are missing are not keys of `labels`."""

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
        """Every image; within a part in the order of its labels. May be called more than once."""
        ...


@runtime_checkable
class ArraySource(Source, Protocol):
    """A data set whose images are arrays: .npz."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, int, int, int]]:
        """(N, H, W, C) of each part; H, W and C are those of all parts."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or float32, of all parts."""
        ...

    def blocks(self, part: str) -> Iterator[NDArray[Any]]:
        """The images of a part in order, as (n, H, W, C) arrays of a few MB."""
        ...
