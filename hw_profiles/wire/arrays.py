"""Arrays on the wire: an uncompressed .npz file holds the samples sent to an agent or the outputs sent back."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InvalidInput

_NAMES = "names"
_NUMBERS = "biuf"
"""Numpy's kind codes of numeric types: Booleans, integers and floating-point numbers."""


def pack(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Pack arrays into one file; their names may be any text."""
    file = io.BytesIO()
    numbered = {f"a{number}": array for number, array in enumerate(arrays.values())}
    np.savez(file, allow_pickle=False, **{_NAMES: np.array(list(arrays), dtype=np.str_)}, **numbered)
    return file.getvalue()


def unpack(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays that `pack` wrote; no array may be larger than the file.

    Raises InvalidInput if `content` is not such a file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in packed.infolist()):
                raise InvalidInput("arrays", len(content), "must be an uncompressed .npz file")
            names = _array(packed, _NAMES, "U")
            if names.ndim != 1:
                raise InvalidInput("arrays", len(content), "must begin with a list of names")
            return {str(name): _array(packed, f"a{number}", _NUMBERS) for number, name in enumerate(names)}
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError, OverflowError, RuntimeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("arrays", len(content), "must be a file of arrays") from error


def _array(packed: zipfile.ZipFile, name: str, kinds: str) -> npt.NDArray[Any]:
    """Read one array. Its header is read first, because numpy reserves all the memory that a header claims."""
    member = packed.read(f"{name}.npy")
    shape, dtype = _header(io.BytesIO(member))
    if dtype.kind not in kinds:
        raise InvalidInput("arrays", str(dtype), f"{name} must hold {'text' if kinds == 'U' else 'numbers'}")
    if math.prod(shape) * dtype.itemsize > len(member):
        raise InvalidInput("arrays", list(shape), f"{name} is shorter than its header says")
    found: npt.NDArray[Any] = np.lib.format.read_array(io.BytesIO(member), allow_pickle=False)
    return found


def _header(file: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("a version of the format that `pack` does not write")
    try:
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except (MemoryError, RecursionError, TypeError, tokenize.TokenError) as error:  # read by Python's own parser
        raise ValueError("an unreadable header") from error
    return shape, dtype
