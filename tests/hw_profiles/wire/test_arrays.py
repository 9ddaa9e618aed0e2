"""Arrays on the wire come back as they were, under any name; what is no such file is refused in words."""

from __future__ import annotations

import io

import numpy as np
import pytest

from hw_profiles.errors import InvalidInput
from hw_profiles.wire.arrays import pack, unpack


def test_arrays_come_back_under_their_names() -> None:
    sent = {"file": np.arange(6, dtype=np.float32).reshape(2, 3), "a/b:0": np.array([True]), "": np.float16([1.5])}
    back = unpack(pack(sent))
    assert list(back) == list(sent)
    for name, array in sent.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)


def _npz(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # one of them is pickled, which `unpack` must refuse
    return file.getvalue()


def _compressed() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, names=np.array(["x"]), a0=np.zeros(10**6))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK no zip",
        _npz(other=np.zeros(1)),
        _npz(names=np.array(["x"])),
        _npz(names=np.array(["x"]), a0=np.array([{}], dtype=object)),
        _compressed(),
    ],
    ids=["empty", "no zip", "no names", "name without array", "pickle", "compressed"],
)
def test_what_is_no_file_of_arrays_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="arrays"):
        unpack(content)
