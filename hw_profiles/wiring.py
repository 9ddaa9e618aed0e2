"""The wiring of a network: its file without the values of its weights. The wiring alone determines how a runtime fuses
nodes.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

from hw_profiles.ops import MAX_VALUE_ELEMENTS

if TYPE_CHECKING:
    import onnx

_VALUES = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def wiring(model: bytes) -> str:
    """Return the sha256 (hex) of an ONNX file in which large constants keep their shapes but not their values.

    Small constants keep their values: shapes, axes, pads and scales may affect fusion.
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
