"""The wiring of a network: its file without the values of its weights. What a runtime fuses depends on nothing else."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

from hw_profiles.ops import MAX_VALUE_ELEMENTS

if TYPE_CHECKING:
    import onnx

_VALUES = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def wiring(model: bytes) -> str:
    """sha256 (hex) of an ONNX file in which large constants have a shape and no values.

    Small ones keep theirs: shapes, axes, pads and scales may decide what is fused.
    """
    import onnx

    parsed = onnx.load_model_from_string(model)
    for tensor in parsed.graph.initializer:
        _forget_values(tensor)
    return hashlib.sha256(parsed.SerializeToString(deterministic=True)).hexdigest()


def _forget_values(tensor: onnx.TensorProto) -> None:
    if math.prod(tensor.dims) > MAX_VALUE_ELEMENTS:
        for name in _VALUES:
            tensor.ClearField(name)
