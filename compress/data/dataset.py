"""Dataset: labelled images in three parts, read from a file of any format; decoded once, then memory-mapped."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.checks import check_fits
from compress.data.decoded import DecodeRequest, cache_beside, file_digest, once, text_digest
from compress.data.decoding import NpyWriter, Summary, images_path, labels_path
from compress.data.formats.source import PARTS, Limits
from compress.data.preprocessing import Preprocessing
from compress.data.split import draw
from compress.errors import InvalidInput
from compress.task import TargetKind
from compress.tasks import DEFAULT, names

__all__ = ["PARTS", "Dataset", "Limits", "Part", "cache_beside", "check_fits", "inspect_dataset", "load_dataset"]

ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Part:
    """Labelled images.

    Args:
        images: (N, H, W, C) uint8 or float32, RGB; possibly a read-only memory map.
        labels: one target per image, shape (N, ...): either int64 classes counted from 0, or float32 values.

    Raises:
        InvalidInput: shapes or dtypes are wrong, counts differ, or there is no image.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype not in (np.uint8, np.float32):
            seen = f"{self.images.dtype} {self.images.shape}"
            raise InvalidInput("images", seen, "images must be (N, H, W, C), uint8 or float32")
        if self.labels.dtype not in (np.int64, np.float32) or self.labels.shape[:1] != self.images.shape[:1]:
            seen = f"{self.labels.dtype} {self.labels.shape}"
            raise InvalidInput("labels", seen, f"labels must be int64 or float32, {len(self.images)} of them")
        if self.labels.size == 0 or (self.labels.dtype == np.int64 and self.labels.min() < 0):
            raise InvalidInput("labels", len(self.labels), "labels are empty or negative")
        if not np.isfinite(self.labels).all():
            raise InvalidInput("labels", "nan or inf", "labels must be finite numbers")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Part:
        """Return a copy of the images at these indices."""
        return Part(np.asarray(self.images[indices]), self.labels[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with all three parts.

    Args:
        train, validation, test: the parts, images of one shape and dtype.
        classes: number of classes, so that labels are 0..classes - 1; 0 if labels are not class numbers.
        class_names: names of the classes; may be empty.
        drawn: the parts that were drawn from train because the file lacks them.
        warnings: warnings for the user.
        digest: sha256 of the file's bytes and of every setting that decides which part an image is in.
    """

    train: Part
    validation: Part
    test: Part
    classes: int
    class_names: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    digest: str = ""

    def __post_init__(self) -> None:
        for name in PARTS:
            part = self.part(name)
            if part.images.shape[1:] != self.image_shape or part.images.dtype != self.train.images.dtype:
                seen = f"{part.images.dtype} {part.images.shape[1:]}"
                raise InvalidInput(name, seen, f"images of {name} differ from train's in shape or dtype")
            if part.labels.shape[1:] != self.targets.shape:
                raise InvalidInput(name, part.labels.shape[1:], f"labels of {name} differ from train's in shape")
            if self.classes and part.labels.max() >= self.classes:
                raise InvalidInput(name, int(part.labels.max()), f"labels of {name} must be 0..{self.classes - 1}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of every image."""
        height, width, channels = self.train.images.shape[1:]
        return (height, width, channels)

    @property
    def targets(self) -> TargetKind:
        """The form of every label."""
        return TargetKind(self.classes, self.train.labels.shape[1:])

    def part(self, name: str) -> Part:
        """Return the part of that name, one of PARTS.

        Raises:
            InvalidInput: there is no such part.
        """
        if name not in PARTS:
            raise InvalidInput("part", name, f"a part must be one of {', '.join(PARTS)}")
        part: Part = getattr(self, name)
        return part

    def sample(self, part: str, count: int, seed: int) -> Part:
        """Return `count` different images of a part, chosen by the seed, or all images if there are fewer.

        They come in random order, since a file may store one class after another: the first n of a sample are
        themselves a sample.
        """
        whole = self.part(part)
        rng = np.random.default_rng([seed, PARTS.index(part)])
        return whole.take(rng.choice(len(whole), min(count, len(whole)), replace=False))


def load_dataset(
    path: Path,
    *,
    layout: str | None = None,
    classes: int | None = None,
    preprocessing: Preprocessing | None = None,
    input_shape: Sequence[int] | None = None,
    seed: int = 0,
    cache: Path | None = None,
    digest: str | None = None,
    limits: Limits | None = None,
    task: str = DEFAULT,
) -> Dataset:
    """Load a data set with all of its parts, resized for the network.

    Args:
        path: .npz, Parquet or zip, recognised by content.
        layout: for an .npz, one of NHW, NHWC and NCHW; None finds the layout from the shape or, if the shape is
            ambiguous, from `input_shape`.
        classes: number of classes; None counts them.
        preprocessing: only `size`, `resize` and `crop` matter here.
        input_shape: (C, H, W) of the network, or None.
        seed: determines which training images are moved to a missing part.
        cache: folder for decoded copies, memory-mapped by later calls; None decodes into memory each time.
        digest: sha256 of the file, if the caller knows it.
        limits: limits on the file's size and contents.
        task: the name of the task that reads the labels.

    Raises:
        InvalidInput: the input is wrong; the error names the field and the value seen.
    """
    request = DecodeRequest(path, digest or file_digest(path), layout, classes, None, limits or Limits(), task)
    with ExitStack() as stack:
        folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netlathe-data-")))
        whole = _decoded(request, preprocessing or Preprocessing(), input_shape, folder)
        summary = Summary.load(whole)
        missing = tuple(part for part in PARTS if part not in summary.counts)
        split = whole / f"split-{seed}"
        if missing:
            once(split, lambda target: _write_split(whole, target, missing, seed))
        homes = {part: split if missing and part in ("train", *missing) else whole for part in PARTS}
        parts = {part: _open_part(homes[part], part, mapped=cache is not None) for part in PARTS}
    return Dataset(
        **parts,
        classes=summary.classes,
        class_names=summary.class_names,
        drawn=missing,
        warnings=(*summary.warnings, *_drawn_warnings(parts, missing)),
        digest=text_digest(f"{whole.name} {seed if missing else 'as given'}"),
    )


def _decoded(
    request: DecodeRequest, preprocessing: Preprocessing, input_shape: Sequence[int] | None, folder: Path
) -> Path:
    """Return the folder of the decoded copy.

    The network's input matters only if the layout is ambiguous without it. All networks of one input size therefore
    share one copy.
    """
    try:
        return request.sized(preprocessing, folder)
    except InvalidInput as error:
        if error.field != "layout" or request.layout is not None or input_shape is None:
            raise
    return replace(request, input_shape=input_shape).sized(preprocessing, folder)


def inspect_dataset(
    path: Path,
    *,
    layout: str | None = None,
    classes: int | None = None,
    cache: Path | None = None,
    digest: str | None = None,
    limits: Limits | None = None,
) -> Summary:
    """Check every label and every pixel, and store the decoded copy in the cache; this needs no network.

    The arguments and errors are the same as for `load_dataset`. Images may differ in size, since a network's
    preprocessing may give a size. Labels pass if any task can read them; if no task can, the default task's error is
    raised.
    """
    request = DecodeRequest(path, digest or file_digest(path), layout, classes, None, limits or Limits())
    with ExitStack() as stack:
        folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netlathe-data-")))
        return Summary.load(_read_by_any(request, folder))


def _read_by_any(request: DecodeRequest, folder: Path) -> Path:
    try:
        return request.native(folder)
    except InvalidInput:
        for task in names()[1:]:
            with suppress(InvalidInput):
                return replace(request, task=task).native(folder)
        raise


def _write_split(whole: Path, target: Path, missing: tuple[str, ...], seed: int) -> None:
    train = _open_part(whole, "train", mapped=True)
    for part, indices in draw(train.labels, missing, seed).items():
        shape = (len(indices), *train.images.shape[1:])
        with NpyWriter(images_path(target, part), shape, train.images.dtype) as writer:
            for start in range(0, len(indices), ROWS_AT_ONCE):
                writer.write(train.images[indices[start : start + ROWS_AT_ONCE]])
        np.save(labels_path(target, part), train.labels[indices])


def _open_part(directory: Path, part: str, *, mapped: bool) -> Part:
    images = np.load(images_path(directory, part), mmap_mode="r" if mapped else None, allow_pickle=False)
    return Part(images, np.load(labels_path(directory, part), allow_pickle=False))


def _drawn_warnings(parts: dict[str, Part], missing: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        f"no {part} part: {len(parts[part])} images were drawn from train; the network may have been trained on them"
        for part in missing
    )
