"""Latency tables as files: either JSON, or Parquet with one row per block and all other values in the schema's
metadata.
"""

from __future__ import annotations

import io
import json
from typing import Any, get_type_hints

from hw_profiles.tables.features import Features
from hw_profiles.tables.table import LatencyTable
from hw_profiles.wire.bounds import MAX_LATENCY_US
from service.errors import InvalidInput

PARQUET = "application/vnd.apache.parquet"
JSON = "application/json"
MAX_ROWS = 1_000_000
MAX_DECODED_BYTES = 1024**3
METADATA = b"netlathe"
_COLUMNS: dict[str, type] = get_type_hints(Features)


def to_parquet(table: LatencyTable) -> bytes:
    """Return a Parquet file with key, latency_us, sigma_us, epoch, the feature columns, and the timing as JSON."""
    import pyarrow
    from pyarrow import parquet

    data = table.to_json()
    lines = [
        {name: row[name] for name in ("key", "latency_us", "sigma_us", "epoch")}
        | row["features"]
        | {"timing": json.dumps(row["timing"])}
        for row in data.pop("rows")
    ]
    kinds = {str: pyarrow.string(), int: pyarrow.int64()}
    columns = [("key", pyarrow.string()), ("latency_us", pyarrow.float64()), ("sigma_us", pyarrow.float64())]
    columns += [("epoch", pyarrow.int64()), *((name, kinds[kind]) for name, kind in _COLUMNS.items())]
    schema = pyarrow.schema([*columns, ("timing", pyarrow.string())], metadata={METADATA: json.dumps(data).encode()})
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(lines, schema=schema), file)
    return file.getvalue()


def from_parquet(content: bytes) -> LatencyTable:
    """Read a table from a Parquet file that `to_parquet` made.

    Raises:
        InvalidInput: the file is not such a table, or too large once decoded.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        seen = file.metadata
        decoded = sum(seen.row_group(index).total_byte_size for index in range(seen.num_row_groups))
        if seen.num_rows > MAX_ROWS or decoded > MAX_DECODED_BYTES:
            raise InvalidInput("table", seen.num_rows, f"at most {MAX_ROWS} rows and {MAX_DECODED_BYTES} bytes")
        data: dict[str, Any] = json.loads((file.schema_arrow.metadata or {})[METADATA])
        lines = file.read().to_pylist()
        data["rows"] = [_row(line) for line in lines]
    except (pyarrow.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("table", len(content), f"is not a latency table in Parquet: {error}") from error
    return from_json(data)


def _row(line: dict[str, Any]) -> dict[str, Any]:
    features = {name: line[name] for name in _COLUMNS}
    plain = {name: line[name] for name in ("key", "latency_us", "sigma_us", "epoch")}
    return plain | {"features": features, "timing": json.loads(line["timing"])}


def from_json(data: object) -> LatencyTable:
    """Read a table from its JSON form, checking every value, because predictions will use them.

    Raises:
        InvalidInput, hw_profiles.errors.InvalidInput: a field is missing or wrong.
    """
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
        raise InvalidInput("table", type(data).__name__, "must be an object with a list `rows`")
    if len(data["rows"]) > MAX_ROWS:
        raise InvalidInput("rows", len(data["rows"]), f"may have at most {MAX_ROWS} rows")
    for number, row in enumerate(data["rows"]):
        _check_features(number, row)
    try:
        table = LatencyTable.from_json(data)
    except (TypeError, AttributeError) as error:
        raise InvalidInput("table", sorted(data), f"is not a latency table: {error}") from error
    for number, read in enumerate(table.rows.values()):
        if len(read.key) != 64:
            raise InvalidInput(f"rows.{number}.key", read.key, "must be a sha256")
        if max(read.latency_us, read.sigma_us) > MAX_LATENCY_US:
            raise InvalidInput(f"rows.{number}.latency_us", read.latency_us, f"must be at most {MAX_LATENCY_US:g}")
    return table


def _check_features(number: int, row: object) -> None:
    seen = row.get("features") if isinstance(row, dict) else None
    if not isinstance(seen, dict) or seen.keys() != _COLUMNS.keys():
        wanted = ", ".join(_COLUMNS)
        raise InvalidInput(f"rows.{number}.features", seen, f"must have exactly the columns {wanted}")
    for name, kind in _COLUMNS.items():
        if type(seen[name]) is not kind:
            raise InvalidInput(f"rows.{number}.features.{name}", seen[name], f"must be of type {kind.__name__}")
