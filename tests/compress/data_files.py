"""Small data sets written as users write them, good ones and evil ones."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

CLASSES = 3


def pixels(count: int, shape: Sequence[int] = (8, 6, 3), seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count: int) -> NDArray[np.int64]:
    return np.arange(count) % CLASSES


def write_npz(path: Path, **arrays: Any) -> Path:
    """30 training images with labels unless `arrays` say otherwise; an array given as None is left out."""
    named = {"x_train": pixels(30), "y_train": labels(30)} | arrays
    np.savez(path, **{name: array for name, array in named.items() if array is not None})
    return path


def png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces many pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"")
    chunks = [header, b"IDAT" + data, b"IEND"]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def class_folders(
    part: str, count: int, names: Sequence[str] = ("ant", "bee", "cat"), seed: int = 0
) -> dict[str, bytes]:
    """`count` images of 8x6 in the folders of a part."""
    images = pixels(count, seed=seed)
    return {f"{part}/{names[i % len(names)]}/{i:03}.png": png(images[i]) for i in range(count)}


def table(images: Sequence[bytes | None], **columns: Any) -> pa.Table:
    """The Hugging Face image layout; `columns` are added or replaced."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": data, "path": None} for data in images]
    return pa.table({"image": pa.array(rows, kind), "label": labels(len(images))} | columns)


def write_parquet(path: Path, images: Sequence[bytes | None], **columns: Any) -> Path:
    pq.write_table(table(images, **columns), path)
    return path


def pngs(count: int, seed: int = 0) -> list[bytes]:
    return [png(image) for image in pixels(count, seed=seed)]
