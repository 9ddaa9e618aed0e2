"""Decode a source into one .npy file for the images and one for the labels of each part, and check both.

Blocks and images are streamed, so that memory does not grow with the size of the data set.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from compress.data.checks import PixelCheck, is_unlabelled
from compress.data.formats.source import PARTS, ArraySource, EncodedSource, Item, Labels, Limits
from compress.data.images import UPRIGHT, Header, decode, read_header, resize
from compress.data.preprocessing import Preprocessing
from compress.errors import InvalidInput
from compress.task import TargetKind, Task

IMAGES_AT_ONCE = 256
SUMMARY = "summary.json"
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Summary:
    """The contents of a decoded folder.

    Args:
        counts: part -> number of images.
        classes: number of classes; 0 if labels are not class numbers.
        class_names: names of the classes; may be empty.
        image_shape: (H, W, C); None if images differ in size, in which case only this summary was written.
        warnings: warnings for the user.
        target_shape: shape of one label; () for a class number.
    """

    counts: Mapping[str, int]
    classes: int
    class_names: tuple[str, ...]
    image_shape: Shape | None
    warnings: tuple[str, ...]
    target_shape: tuple[int, ...] = ()

    def save(self, directory: Path) -> None:
        """Write the summary beside the arrays."""
        (directory / SUMMARY).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, directory: Path) -> Summary:
        """Read a summary that `save` wrote."""
        data = json.loads((directory / SUMMARY).read_text())
        shape = data["image_shape"]
        return cls(
            data["counts"],
            data["classes"],
            tuple(data["class_names"]),
            None if shape is None else (shape[0], shape[1], shape[2]),
            tuple(data["warnings"]),
            tuple(data.get("target_shape", ())),
        )


def decode_source(
    source: ArraySource | EncodedSource,
    directory: Path,
    *,
    task: Task,
    classes: int | None,
    preprocessing: Preprocessing,
    limits: Limits,
) -> Summary:
    """Write `<part>.images.npy` (N, H, W, C), `<part>.labels.npy` (N, ...) and the summary.

    Args:
        source: an opened file.
        directory: an empty folder.
        task: the task that reads the labels.
        classes: number of classes; None leaves it to the task.
        preprocessing: images are resized to its `size`.
        limits: limits on the size of the result.

    Raises:
        InvalidInput: labels, images or their sizes are wrong; the message says how.
    """
    labels, kind, warnings = _labels(source, task, classes)
    counts = {part: len(values) for part, values in labels.items()}
    shape, more = (
        _write_arrays(source, directory, counts, preprocessing, limits)
        if isinstance(source, ArraySource)
        else _write_images(source, directory, counts, preprocessing, limits)
    )
    if shape is not None:
        for part, values in labels.items():
            np.save(labels_path(directory, part), values)
    names = source.class_names if len(source.class_names) == kind.classes else ()
    told = (*source.warnings, *warnings, *more)
    summary = Summary(counts, kind.classes, names, shape, told, kind.shape)
    summary.save(directory)
    return summary


def images_path(directory: Path, part: str) -> Path:
    """Return the path of a part's images in a decoded folder."""
    return directory / f"{part}.images.npy"


def labels_path(directory: Path, part: str) -> Path:
    """Return the path of a part's labels in a decoded folder."""
    return directory / f"{part}.labels.npy"


class NpyWriter:
    """A writer of an array of known shape to a .npy file, some rows at a time."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file: BinaryIO = path.open("wb")
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, header)

    def write(self, rows: NDArray[Any]) -> None:
        """Append rows of the array's dtype."""
        self._file.write(np.ascontiguousarray(rows).data)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _labels(
    source: ArraySource | EncodedSource, task: Task, classes: int | None
) -> tuple[dict[str, NDArray[Any]], TargetKind, tuple[str, ...]]:
    if "train" not in source.labels:
        raise InvalidInput("file", sorted(source.labels), "there is no train part")
    unlabelled = [part for part in ("test",) if part in source.labels and is_unlabelled(source.labels[part])]
    checked = {
        part: _finite(task.targets(source.labels[part], _image_count(source, part), part), source.labels[part], part)
        for part in PARTS
        if part in source.labels and part not in unlabelled
    }
    kind, warnings = task.kind(checked, source.labels, classes, source.class_names)
    unused = [f"{_image_count(source, part)} images of {part} have no label and were not used" for part in unlabelled]
    return checked, kind, (*unused, *warnings)


def _finite(targets: NDArray[Any], labels: Labels, part: str) -> NDArray[Any]:
    broken = np.argwhere(~np.isfinite(targets))
    if len(broken):
        at = tuple(int(index) for index in broken[0])
        raise InvalidInput(labels.where, at, f"{len(broken)} labels of {part} are NaN or infinite, the first at {at}")
    return targets


def _image_count(source: ArraySource | EncodedSource, part: str) -> int:
    return source.shapes[part][0] if isinstance(source, ArraySource) else len(source.labels[part].values)


def _write_arrays(
    source: ArraySource, directory: Path, counts: Mapping[str, int], preprocessing: Preprocessing, limits: Limits
) -> tuple[Shape, tuple[str, ...]]:
    height, width, channels = source.shapes["train"][1:]
    if height * width > limits.image_pixels:
        raise InvalidInput("x_train", (height, width), f"images have more than {limits.image_pixels} pixels")
    shape = (*(preprocessing.size or (height, width)), channels)
    _check_decoded_bytes(counts, shape, source.dtype, limits)
    warnings: tuple[str, ...] = ()
    with ThreadPoolExecutor(_threads()) as pool:
        for part, count in counts.items():
            check = PixelCheck(part)
            with NpyWriter(images_path(directory, part), (count, *shape), source.dtype) as writer:
                for block in source.blocks(part):
                    check.add(block)
                    fitted = block
                    if block.shape[1:] != shape:
                        fitted = np.stack(list(pool.map(partial(resize, preprocessing=preprocessing), block)))
                    writer.write(fitted)
            check.finish()
            warnings += check.warnings(source.dtype)
    return shape, warnings


def _write_images(
    source: EncodedSource,
    directory: Path,
    counts: Mapping[str, int],
    preprocessing: Preprocessing,
    limits: Limits,
) -> tuple[Shape | None, tuple[str, ...]]:
    headers = Counter(read_header(item.data, item.where, limits) for item in _used(source, counts))
    channels = max(header.channels for header in headers)
    shape, warnings = _common_shape(headers, channels, preprocessing)
    if shape is not None:
        _check_decoded_bytes(counts, shape, np.dtype(np.uint8), limits)

    def to_pixels(item: Item) -> NDArray[Any]:
        return resize(decode(item.data, item.where, channels, limits), preprocessing)

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_threads()))
        writers = {
            part: stack.enter_context(NpyWriter(images_path(directory, part), (count, *shape), np.dtype(np.uint8)))
            for part, count in counts.items()
            if shape is not None
        }
        for items in _batched(_used(source, counts)):
            # If sizes differ, nothing is written, but every image is still decoded, as a check.
            for item, pixels in zip(items, pool.map(to_pixels, items), strict=True):
                if shape is not None:
                    writers[item.part].write(pixels)
    return shape, warnings


def _used(source: EncodedSource, counts: Mapping[str, int]) -> Iterator[Item]:
    return (item for item in source.items() if item.part in counts)


def _common_shape(
    headers: Counter[Header], channels: int, preprocessing: Preprocessing
) -> tuple[Shape | None, tuple[str, ...]]:
    turned = sum(count for header, count in headers.items() if header.orientation != UPRIGHT)
    warnings: tuple[str, ...] = ()
    if turned:
        warnings = (f"photos turned upright by the orientation in their EXIF data: {turned}",)
    if len({header.channels for header in headers}) > 1:
        warnings += ("grey and colour images are mixed: all are read as RGB",)
    if preprocessing.size is not None:
        return (*preprocessing.size, channels), warnings
    sizes = sorted({(header.height, header.width) for header in headers})
    if len(sizes) == 1:
        return (*sizes[0], channels), warnings
    seen = f"images differ in size, from {sizes[0]} to {sizes[-1]} (height, width)"
    return None, (*warnings, f"{seen}: the model's preprocessing must give `size`")


def _check_decoded_bytes(counts: Mapping[str, int], shape: Sequence[int], dtype: np.dtype[Any], limits: Limits) -> None:
    total = sum(counts.values()) * math.prod(shape) * dtype.itemsize
    if total > limits.decoded_bytes:
        raise InvalidInput("file", total, f"images take more than {limits.decoded_bytes} bytes as pixels")


def _batched(items: Iterator[Item]) -> Iterator[list[Item]]:
    while batch := list(islice(items, IMAGES_AT_ONCE)):
        yield batch


def _threads() -> int:
    return min(os.cpu_count() or 1, 8)
