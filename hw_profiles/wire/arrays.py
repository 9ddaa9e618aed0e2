"""Arrays on the wire: an uncompressed .npz file holds the samples sent to an agent or the outputs sent back."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InvalidInput

_NAMES = "names"


def pack(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Pack arrays with any names into one file."""
    file = io.BytesIO()
    numbered = {f"a{number}": array for number, array in enumerate(arrays.values())}
    np.savez(file, allow_pickle=False, **{_NAMES: np.array(list(arrays), dtype=np.str_)}, **numbered)
    return file.getvalue()


def unpack(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays that `pack` wrote; no array is larger than the file.

    Raises InvalidInput if `content` is not such a file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in packed.infolist()):
                raise InvalidInput("arrays", len(content), "must be an uncompressed .npz file")
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            return {str(name): found[f"a{number}"] for number, name in enumerate(found[_NAMES])}
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("arrays", len(content), "must be a file of arrays") from error
