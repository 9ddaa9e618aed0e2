"""Recognises networks that are not ONNX files by their first bytes or name, and says how to convert them."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from service.errors import InvalidInput

TORCH = (
    "export it on your own machine: `netlathe submit --model package.module:factory`, or "
    'torch.onnx.export(model.eval(), example, "model.onnx", dynamo=True, external_data=False)'
)
PICKLE = f"it is (or holds) a Python pickle, which can run any code and is never opened here; {TORCH}"
KERAS = "convert it on your own machine with tf2onnx: python -m tf2onnx.convert --saved-model DIR --output model.onnx"

DATA = "a network is an ONNX file; if this is a data set, upload it as a data set"

ZIP = b"PK\x03\x04"
ZIP_NAME = 30
"""Offset of the first member's name in a zip; the name's length is in the two bytes at ZIP_NAME - 4."""
TORCH_MEMBER = re.compile(r"[^/]+/(data\.pkl$|data/|code/|version$|archive_format$)")
"""Possible names of the first member of .pt, TorchScript and .pt2 files, which are all zips."""
HEAD = ZIP_NAME + 200

# First bytes of a file, their offset, the kind of file, and advice.
BY_MAGIC: tuple[tuple[bytes, int, str, str], ...] = (
    (b"PK\x05\x06", 0, "an empty zip", "upload the .onnx file itself"),
    (b"\x93NUMPY", 0, "a NumPy array, without a graph", DATA),
    (b"PAR1", 0, "a Parquet file", DATA),
    (b"\x80\x02", 0, "a pickle", PICKLE),
    (b"\x80\x03", 0, "a pickle", PICKLE),
    (b"\x80\x04", 0, "a pickle", PICKLE),
    (b"\x80\x05", 0, "a pickle", PICKLE),
    (b"\x89HDF\r\n", 0, "an HDF5 file, as Keras saves", KERAS),
    (b"TFL3", 4, "a TensorFlow Lite file", KERAS),
    (b"ORTM", 4, "a file of onnxruntime's own format", "upload the ONNX file that it was made from"),
    (b"\x1f\x8b", 0, "compressed with gzip", "unpack it first"),
    (b"{", 8, "a safetensors file, which holds weights but no graph", TORCH),
)
BY_SUFFIX: dict[str, tuple[str, str]] = {
    **dict.fromkeys((".pt", ".pth", ".pt2", ".ckpt", ".bin", ".torchscript"), ("a torch file by its name", PICKLE)),
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".npy"), ("a Python file by its name", PICKLE)),
    **dict.fromkeys((".h5", ".keras", ".tflite", ".pb"), ("a TensorFlow file by its name", KERAS)),
    ".safetensors": ("weights without a graph by its name", TORCH),
}


def refuse_foreign(path: Path, file_name: str) -> None:
    """Refuse a file of a known kind that is not ONNX, reading only its first bytes.

    Raises:
        InvalidInput: the file is not ONNX; the text says what it is and how to convert it.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise InvalidInput("file", file_name, "the file is empty")
    suffix = PurePath(file_name).suffix.lower()
    if head.startswith(ZIP):
        kind, advice = _zip(head, suffix)
        raise InvalidInput("file", file_name, f"this is {kind}, not ONNX: {advice}")
    for magic, offset, kind, advice in BY_MAGIC:
        if head[offset:].startswith(magic):
            raise InvalidInput("file", file_name, f"this is {kind}, not ONNX: {advice}")
    found = BY_SUFFIX.get(suffix)
    if found is not None:
        raise InvalidInput("file", file_name, f"this is {found[0]}, not ONNX: {found[1]}")


def _zip(head: bytes, suffix: str) -> tuple[str, str]:
    """Return the kind of a zip, judging by its first member, and advice. The zip's directory is not read, because it
    may be forged.
    """
    length = int.from_bytes(head[ZIP_NAME - 4 : ZIP_NAME - 2], "little")
    first = head[ZIP_NAME : ZIP_NAME + length].decode(errors="replace")
    if TORCH_MEMBER.match(first) or suffix in BY_SUFFIX:
        return BY_SUFFIX.get(suffix, ("a zip, as .pt, .pt2 and TorchScript files are", PICKLE))
    if first.endswith(".npy"):
        return "a NumPy archive (.npz), which holds arrays but no graph", DATA
    shown = "".join(character for character in first if character.isprintable())[:80]
    return f"a zip that begins with {shown!r}", f"if it contains an .onnx file, upload that file; {DATA}"
