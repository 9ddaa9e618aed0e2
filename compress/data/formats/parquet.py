"""Parquet files in the Hugging Face image layout: `image` or `img` (bytes, path), `label`, optional `split`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from compress.data.formats.parts import part_named
from compress.data.formats.source import NO_LABEL, PARTS, Item, Labels, Limits
from compress.errors import InvalidInput

IMAGE_COLUMNS = ("image", "img")
ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class ParquetFile:
    """One Parquet file of the data set.

    Args:
        path: the file.
        name: the file's name in an error.
        part: the part of its rows if it has no `split` column.
    """

    path: Path
    name: str
    part: str = "train"


@dataclass(frozen=True, eq=False)
class _Table:
    file: ParquetFile
    image_column: str
    parts: NDArray[np.int8]  # index into PARTS of each row
    labels: NDArray[Any]
    class_names: tuple[str, ...]


class ParquetSource:
    """One or more Parquet files, read in batches of rows.

    Raises:
        InvalidInput: a column is wrong; the message names the column and its contents.
    """

    def __init__(self, files: Sequence[ParquetFile], limits: Limits, warnings: Sequence[str] = ()) -> None:
        self._limits = limits
        self.warnings = tuple(warnings)
        self._tables = [_read_table(file) for file in files]
        self.class_names = self._tables[0].class_names
        self.labels: dict[str, Labels] = {}
        for number, part in enumerate(PARTS):
            chosen = [table.labels[table.parts == number] for table in self._tables]
            if any(len(labels) for labels in chosen):
                self.labels[part] = Labels(np.concatenate(chosen), "label")

    def items(self) -> Iterator[Item]:
        """Yield every image, in the order of the rows."""
        total_bytes = 0
        for table in self._tables:
            for row, data in enumerate(_images(table)):
                where = f"row {row} of {table.file.name}"
                if not data:
                    raise InvalidInput(table.image_column, None, f"{where} has no image bytes: embed the files")
                total_bytes += len(data)
                if total_bytes > self._limits.total_bytes:
                    raise InvalidInput(
                        "file", total_bytes, f"images unpack to more than {self._limits.total_bytes} bytes"
                    )
                yield Item(PARTS[table.parts[row]], where, data)


def _images(table: _Table) -> Iterator[bytes | None]:
    column = f"{table.image_column}.bytes"
    with _open(table.file) as parquet:
        for batch in _batches(parquet, column, table.file):
            for value in batch.column(0).field("bytes"):
                yield value.as_py()


def _batches(parquet: pq.ParquetFile, column: str, file: ParquetFile) -> Iterator[pa.RecordBatch]:
    try:
        yield from parquet.iter_batches(batch_size=ROWS_AT_ONCE, columns=[column])
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error


def _open(file: ParquetFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file.path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: ParquetFile, error: Exception) -> InvalidInput:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InvalidInput("file", file.name, f"{file.name} cannot be read as Parquet: {reason}")


def _read_table(file: ParquetFile) -> _Table:
    with _open(file) as parquet:
        schema = parquet.schema_arrow
        image_column = _image_column(schema)
        names = ["label"] + (["split"] if "split" in schema.names else [])
        if "label" not in schema.names:
            raise InvalidInput("label", schema.names, f"{file.name} has no column label")
        try:
            columns = parquet.read(columns=names)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error
    labels = _labels(columns["label"])
    parts = np.full(len(labels), PARTS.index(file.part), np.int8)
    if "split" in names:
        parts = _parts(columns["split"])
    return _Table(file, image_column, parts, labels, _class_names(schema))


def _image_column(schema: pa.Schema) -> str:
    for name in IMAGE_COLUMNS:
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            binary = kind.field("bytes").type
            if pa.types.is_binary(binary) or pa.types.is_large_binary(binary):
                return name
        raise InvalidInput(name, str(kind), f"{name} must be a struct of bytes and path")
    raise InvalidInput("image", schema.names, "there is no column image or img")


def _labels(column: pa.ChunkedArray) -> NDArray[Any]:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InvalidInput("label", str(column.type), "labels must be integers from 0")
    if column.null_count and pa.types.is_integer(column.type):
        column = column.cast(pa.int64(), safe=False)  # unsigned integers cannot hold NO_LABEL
    values: NDArray[Any] = column.fill_null(NO_LABEL).to_numpy()
    return values


def _parts(column: pa.ChunkedArray) -> NDArray[np.int8]:
    names = column.unique().to_pylist()
    parts_of = [part_named(name) for name in names]
    known = [part for part in parts_of if part is not None]
    if len(known) < len(names):
        raise InvalidInput("split", names[parts_of.index(None)], f"split must be one of {', '.join(PARTS)}")
    codes = np.array([PARTS.index(part) for part in known], np.int8)
    indices: NDArray[Any] = column.combine_chunks().dictionary_encode().indices.to_numpy()
    parts: NDArray[np.int8] = codes[indices]
    return parts


def _class_names(schema: pa.Schema) -> tuple[str, ...]:
    """Return the class names of a Hugging Face ClassLabel from the schema's metadata; empty if it has no names."""
    raw = (schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(raw)["info"]["features"]["label"]["names"] if raw else ()
    except (ValueError, KeyError, TypeError):  # metadata in another form is ignored
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
