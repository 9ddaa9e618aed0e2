"""numpy's .npz with x_train, y_train and optional x_val, y_val, x_test, y_test; uint8 or float32, without pickles.

A suffix may be any of the names in `compress.data.formats.parts`, e.g. x_valid means the same as x_val.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from compress.data.formats.archive import open_archive
from compress.data.formats.layout import nhwc_shape, resolve_layout, to_nhwc
from compress.data.formats.parts import part_named
from compress.data.formats.source import PARTS, Labels, Limits
from compress.errors import InvalidInput

BLOCK_BYTES = 4 * 1024**2
Header = tuple[tuple[int, ...], bool, np.dtype[Any]]  # shape, fortran_order, dtype


class NpzSource:
    """The arrays of an .npz file, read as a stream.

    Args:
        path: the file.
        layout: one of LAYOUTS, or None to find it from the shape.
        input_shape: (C, H, W) of the model that the data are for, or None.
        limits: limits on the archive's size and contents.

    Raises:
        InvalidInput: an array or `layout` is wrong; the error names it.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, path: Path, layout: str | None, input_shape: Sequence[int] | None, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self.labels: dict[str, Labels] = {}
        self.shapes: Mapping[str, tuple[int, int, int, int]] = {}
        with open_archive(path, limits) as archive:
            files = archive.namelist()
            names = {file.removesuffix(".npy") for file in files if file.endswith(".npy")}
            self._suffixes = _suffixes(names)
            headers = self._headers(archive, names)
            self.warnings = _not_used(names, self._suffixes, headers)
        first = headers["train"]
        self.dtype = first[2]
        self.layout = resolve_layout(first[0], layout, input_shape, f"x_{self._suffixes['train']}")
        _check_same({f"x_{self._suffixes[part]}": header for part, header in headers.items()}, self.layout)
        self.shapes = {part: nhwc_shape(header[0], self.layout) for part, header in headers.items()}

    def blocks(self, part: str) -> Iterator[NDArray[Any]]:
        """Yield the images of a part in order, as (n, H, W, C) arrays of about BLOCK_BYTES."""
        name = f"x_{self._suffixes[part]}"
        with open_archive(self._path, self._limits) as archive, archive.open(f"{name}.npy") as stream:
            shape, fortran_order, dtype = _header(stream, name)
            if fortran_order:  # rows are scattered over the whole file, so they cannot be streamed
                flat = np.frombuffer(_exactly(stream, math.prod(shape) * dtype.itemsize, name), dtype)
                yield to_nhwc(flat.reshape(shape, order="F"), self.layout)
                return
            row_bytes = math.prod(shape[1:]) * dtype.itemsize
            rows = max(1, BLOCK_BYTES // max(row_bytes, 1))
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                block = np.frombuffer(_exactly(stream, count * row_bytes, name), dtype)
                yield to_nhwc(block.reshape(count, *shape[1:]), self.layout)

    def _headers(self, archive: zipfile.ZipFile, names: set[str]) -> dict[str, Header]:
        if "train" not in self._suffixes:
            raise InvalidInput("x_train", sorted(names), "the .npz has no array x_train")
        headers: dict[str, Header] = {}
        for part, suffix in self._suffixes.items():
            x_name, y_name = f"x_{suffix}", f"y_{suffix}"
            if part == "test" and y_name not in names:
                continue  # images to predict: `_not_used` warns about them
            for name in (x_name, y_name):
                if name not in names:
                    raise InvalidInput(name, sorted(names), f"the .npz has no array {name}")
            headers[part] = _images_header(archive, x_name)
            self.labels[part] = Labels(_labels(archive, y_name), y_name)
        return headers


def _suffixes(names: Set[str]) -> dict[str, str]:
    """Return part -> the suffix of its arrays, in the order of PARTS.

    Raises:
        InvalidInput: two suffixes mean the same part.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        letter, _, suffix = name.partition("_")
        part = part_named(suffix) if letter in ("x", "y") else None
        if part is not None and found.setdefault(part, suffix) != suffix:
            raise InvalidInput(
                name, sorted(names), f"x_{found[part]} and {name} are both {part}: put them into one array"
            )
    return {part: found[part] for part in PARTS if part in found}


def _not_used(names: Set[str], suffixes: Mapping[str, str], headers: Mapping[str, Header]) -> tuple[str, ...]:
    used = {f"{letter}_{suffixes[part]}" for letter in "xy" for part in headers}
    unlabelled = {f"x_{suffixes[part]}" for part in suffixes.keys() - headers.keys()}
    unknown = sorted(names - used - unlabelled)
    found = [f"{name} has no labels and was not used" for name in unlabelled]
    if unknown:
        found.append(f"arrays not used: {', '.join(unknown[:5])}")
    return tuple(found)


def _images_header(archive: zipfile.ZipFile, name: str) -> Header:
    with archive.open(f"{name}.npy") as stream:
        header = _header(stream, name)
    dtype = header[2]
    if dtype != np.uint8 and dtype != np.dtype("<f4"):
        highest = 65535 if dtype == np.uint16 else 255
        converted = f"({name} / {highest})" if dtype.kind in "iu" else name
        advice = f'convert it with {converted}.astype("float32")'
        raise InvalidInput(name, str(dtype), f"{name} is {dtype}, expected uint8 or float32: {advice}")
    return header


def _labels(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as stream:
        shape, fortran_order, dtype = _header(stream, name)
        flat = np.frombuffer(_exactly(stream, math.prod(shape) * dtype.itemsize, name), dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _header(stream: IO[bytes], name: str) -> Header:
    """Read the header of a member; refuse arrays of objects, since reading them would run a pickle."""
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(stream)
    except (ValueError, SyntaxError) as error:
        raise InvalidInput(name, None, f"{name} is not a .npy array: {error}") from error
    if dtype.hasobject or dtype.kind not in "biufcSU":
        raise InvalidInput(
            name, str(dtype), f"{name} holds Python objects or records, which are never loaded: save plain numbers"
        )
    if any(side < 0 for side in shape):
        raise InvalidInput(name, shape, f"{name} has a negative dimension")
    return shape, fortran_order, dtype


def _exactly(stream: IO[bytes], count: int, name: str) -> bytes:
    # The header may be wrong about the size; the reader stops at the member's end anyway.
    data = stream.read(count)
    if len(data) != count:
        raise InvalidInput(name, len(data), f"{name} is truncated: {len(data)} of {count} bytes")
    return data


def _check_same(headers: Mapping[str, Header], layout: str) -> None:
    (first_name, (first_shape, _, first_dtype)), *_ = headers.items()
    for name, (shape, _, dtype) in headers.items():
        if shape[1:] != first_shape[1:]:
            raise InvalidInput(
                name, shape[1:], f"images of {name} differ in shape from {first_name}'s {first_shape[1:]}"
            )
        if dtype != first_dtype:
            raise InvalidInput(name, str(dtype), f"{name} differs from {first_name}'s {first_dtype}")
        if 0 in nhwc_shape(shape, layout)[1:]:
            raise InvalidInput(name, shape, f"images of {name} have no pixels")
