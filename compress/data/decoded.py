"""Decoded copies of data sets. Each copy is written once, completely or not at all; its key covers all its inputs."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.data.decoding import Summary, decode_source
from compress.data.formats.sniff import open_source
from compress.data.formats.source import Limits
from compress.data.preprocessing import Preprocessing
from compress.errors import InvalidInput
from compress.tasks import DEFAULT, load

DECODER = 2  # part of every key: increase it whenever the same file would decode to different pixels
WRITING = ".writing-"


def cache_beside(path: Path) -> Path:
    """Return the folder beside a stored file for its decoded copies; remove it together with the file."""
    return path.with_name(f"{path.name}.decoded")


@dataclass(frozen=True)
class DecodeRequest:
    """A file, and the settings that determine how it is read.

    Args:
        path: .npz, Parquet or zip.
        digest: sha256 of the file.
        layout: the layout of the arrays in an .npz; None finds it.
        classes: number of classes; None counts the classes.
        input_shape: (C, H, W) of the network, or None.
        limits: limits on the file's size and contents.
        task: the name of the task that reads the labels.
    """

    path: Path
    digest: str
    layout: str | None
    classes: int | None
    input_shape: Sequence[int] | None
    limits: Limits
    task: str = DEFAULT

    def native(self, folder: Path) -> Path:
        """Return the decoded copy of the images in their own size; if sizes differ, the copy holds only a summary.

        Raises:
            InvalidInput: the file is wrong; the message says how.
        """
        return self._decode(Preprocessing(), folder)

    def sized(self, preprocessing: Preprocessing, folder: Path) -> Path:
        """Return the decoded copy with images of `preprocessing.size`: the native copy if its images have that size.

        Raises:
            InvalidInput: images differ in size and there is no `preprocessing.size`, or the file is wrong.
        """
        native = self.native(folder)
        shape = Summary.load(native).image_shape
        if shape is None and preprocessing.size is None:
            raise InvalidInput(
                "preprocessing.size", None, "images differ in size: the model's preprocessing must give a size"
            )
        if shape is not None and preprocessing.size in (None, shape[:2]):
            return native
        return self._decode(preprocessing, folder)

    def _decode(self, preprocessing: Preprocessing, folder: Path) -> Path:
        geometry = [preprocessing.size, preprocessing.resize, preprocessing.crop]
        settings = [DECODER, self.digest, self.layout, self.classes, self.input_shape]
        reader = [] if self.task == DEFAULT else [self.task]
        target = folder / text_digest(json.dumps([*settings, geometry if preprocessing.size else None, *reader]))
        once(target, lambda directory: self._write(directory, preprocessing))
        return target

    def _write(self, directory: Path, preprocessing: Preprocessing) -> None:
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=WRITING) as scratch:
            source = open_source(
                self.path,
                Path(scratch),
                layout=self.layout,
                input_shape=self.input_shape,
                limits=self.limits,
            )
            decode_source(
                source,
                directory,
                task=load(self.task),
                classes=self.classes,
                preprocessing=preprocessing,
                limits=self.limits,
            )


def once(target: Path, write: Callable[[Path], None]) -> None:
    """Call `write` to make `target` unless it exists. This is atomic, even if several processes try at once."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=WRITING) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        write(made)
        try:
            made.rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was first and wrote the same content
                raise


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
