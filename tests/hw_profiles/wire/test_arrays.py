"""Arrays on the wire come back as they were, under any name; what is no such file is refused in words."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from hw_profiles.errors import InvalidInput
from hw_profiles.wire.arrays import pack, unpack


def test_arrays_come_back_under_their_names() -> None:
    sent = {"file": np.arange(6, dtype=np.float32).reshape(2, 3), "a/b:0": np.array([True]), "": np.float16([1.5])}
    sent |= {"none": np.zeros((0, 2)), "one": np.array(7), "columns": np.asfortranarray(np.arange(4).reshape(2, 2))}
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


def _claiming(shape: tuple[int, ...]) -> bytes:
    """A file with an array whose header claims this shape and that has one number."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return _with_member(header.getvalue() + bytes(4))


def _headed(header: str) -> bytes:
    """A file with an array that has this text for a header."""
    return _with_member(np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header.encode())


def _with_member(member: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed, zipfile.ZipFile(io.BytesIO(_npz(names=np.array(["x"])))) as names:
        packed.writestr("names.npy", names.read("names.npy"))
        packed.writestr("a0.npy", member)
    return file.getvalue()


def _encrypted() -> bytes:
    content = bytearray(_npz(names=np.array(["x"]), a0=np.zeros(1)))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(mark) + flags] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK no zip",
        _npz(other=np.zeros(1)),
        _npz(names=np.array(["x"])),
        _npz(names=np.array(["x"]), a0=np.array([{}], dtype=object)),
        _compressed(),
        _claiming((10**14,)),
        _claiming((-1, -1)),
        _claiming((2,)),
        _claiming((0, 10**30)),
        _headed("-" * 9000 + "1"),
        _headed("{" * 99),
        _headed("{1: 2, 'descr': 3}"),
        _encrypted(),
        _npz(names=np.array("x"), a0=np.zeros(1)),
        _npz(names=np.array([1.0]), a0=np.zeros(1)),
        _npz(names=np.array(["x"]), a0=np.array(["text"])),
        _npz(names=np.array(["x"]), a0=np.array(["2026-01-01"], dtype="datetime64[D]")),
    ],
    ids=[
        *("empty", "no zip", "no names", "name without array", "pickle", "compressed"),
        *("10^14 elements", "negative shape", "too short", "huge and empty"),
        *("deep header", "open header", "header of mixed keys", "encrypted"),
        *("one name without a list", "numbers for names", "text", "dates"),
    ],
)
def test_what_is_no_file_of_arrays_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="arrays"):
        unpack(content)
