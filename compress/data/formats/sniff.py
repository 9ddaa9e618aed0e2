"""Detection of a file's format, from its first bytes and never from its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.data.formats.archive import open_archive
from compress.data.formats.folders import open_folders
from compress.data.formats.npz import NpzSource
from compress.data.formats.parquet import ParquetFile, ParquetSource
from compress.data.formats.source import ArraySource, EncodedSource, Limits
from compress.errors import InvalidInput

PARQUET = b"PAR1"
ZIP = b"PK"


def open_source(
    path: Path,
    scratch: Path,
    *,
    layout: str | None = None,
    input_shape: Sequence[int] | None = None,
    limits: Limits | None = None,
) -> ArraySource | EncodedSource:
    """Open a data set of any format.

    Args:
        path: the file.
        scratch: an empty folder that must exist as long as the source is read.
        layout: one of `layout.LAYOUTS`; only for .npz.
        input_shape: (C, H, W) of the model that the data are for, or None; resolves ambiguous layouts.
        limits: limits on the file's size and contents; None takes the defaults.

    Raises:
        InvalidInput: the file has none of the formats, or its format's reader refuses it.
    """
    limits = limits or Limits()
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(ZIP):
        with open_archive(path, limits) as archive:
            is_npz = any(name.endswith(".npy") for name in archive.namelist())
        if is_npz:
            return NpzSource(path, layout, input_shape, limits)
    if layout is not None:
        raise InvalidInput("layout", layout, "layout is for .npz files only")
    if magic == PARQUET:
        return ParquetSource([ParquetFile(path, "the file")], limits)
    if magic.startswith(ZIP):
        return open_folders(path, scratch, limits)
    wanted = "a data set is an .npz, a Parquet file or a zip"
    raise InvalidInput("file", None, f"{wanted}; this file {_looks_like(path)}")


def _looks_like(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(200)
    if not head:
        return "is empty"
    text = head.decode("ascii", "replace")
    return "looks like text, such as CSV" if text.isascii() and "\0" not in text else "is none of them"
