"""Files that are networks but not ONNX: recognised by their first bytes or their name, with the way out."""

from __future__ import annotations

from pathlib import Path, PurePath

from service.errors import InvalidInput

TORCH = (
    "export it on your own machine: `netlathe submit --model package.module:factory`, or "
    'torch.onnx.export(model.eval(), example, "model.onnx", dynamo=True)'
)
PICKLE = f"it is (or holds) a Python pickle, which can run any code and is never opened here; {TORCH}"
KERAS = "convert it on your own machine with tf2onnx: python -m tf2onnx.convert --saved-model DIR --output model.onnx"

# What a file begins with -> what it is and what to do.
BY_MAGIC: tuple[tuple[bytes, int, str, str], ...] = (
    (b"PK\x03\x04", 0, "a zip, as .pt, .pt2 and TorchScript files are", PICKLE),
    (b"PK\x05\x06", 0, "an empty zip", PICKLE),
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
    """Refuse a file of a known kind that is not ONNX; only its first bytes are read.

    Raises:
        InvalidInput: what it is, and how to make an ONNX file of it.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise InvalidInput("file", file_name, "the file is empty")
    for magic, offset, kind, advice in BY_MAGIC:
        if head[offset:].startswith(magic):
            raise InvalidInput("file", file_name, f"this is {kind}, not ONNX: {advice}")
    found = BY_SUFFIX.get(PurePath(file_name).suffix.lower())
    if found is not None:
        raise InvalidInput("file", file_name, f"this is {found[0]}, not ONNX: {found[1]}")
