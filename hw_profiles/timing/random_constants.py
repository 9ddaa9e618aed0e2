"""Random values for the constants of an op, chosen by their role so that nothing overflows or becomes denormal."""

from __future__ import annotations

import math

import numpy as np

from hw_profiles.errors import InvalidInput
from hw_profiles.ops import Constant, Op

# Scale of quantised activations.
ACTIVATION_SCALE = 0.03125

# The role of an input, by op type and position of the input; all inputs not listed are weights or plain operands.
_ROLES = {
    ("QuantizeLinear", 1): "scale",
    ("DequantizeLinear", 1): "scale",
    ("QuantizeLinear", 2): "zero_point",
    ("DequantizeLinear", 2): "zero_point",
    ("BatchNormalization", 2): "shift",
    ("BatchNormalization", 3): "shift",
    ("Conv", 1): "weight",
    ("ConvTranspose", 1): "weight",
    ("Gemm", 1): "weight",
    ("MatMul", 1): "weight",
    ("Conv", 2): "shift",
    ("ConvTranspose", 2): "shift",
    ("Gemm", 2): "shift",
}


def random_constants(op: Op, rng: np.random.Generator) -> list[np.ndarray]:
    """Return one array for each constant of `op`; constants with a value keep it.

    Raises InvalidInput if an integer constant has no value and is not a quantised weight, because an op needs the
    values of its shapes and axes.
    """
    roles: dict[str, str] = {}
    for node in op.nodes:
        for position, name in enumerate(node.inputs):
            roles.setdefault(name, _ROLES.get((node.op_type, position), "operand"))
    values = [_value(f"w{i}", constant, roles.get(f"w{i}", "operand"), rng) for i, constant in enumerate(op.constants)]

    for bias, (activation, weight) in _bias_scales(op).items():
        values[bias] = np.asarray(values[activation] * values[weight], values[bias].dtype)
    return values


def _bias_scales(op: Op) -> dict[int, tuple[int, int]]:
    """Return, for each scale of a quantised bias, the scales (of activation and weight) whose product this scale must
    be; otherwise runtimes do not treat the block as quantised.
    """
    scale_of = {
        node.outputs[0]: int(node.inputs[1][1:])
        for node in op.nodes
        if node.op_type == "DequantizeLinear" and node.inputs[1].startswith("w")
    }
    return {
        scale_of[node.inputs[2]]: (scale_of[node.inputs[0]], scale_of[node.inputs[1]])
        for node in op.nodes
        if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2 and set(node.inputs[:3]) <= scale_of.keys()
    }


def _value(name: str, constant: Constant, role: str, rng: np.random.Generator) -> np.ndarray:
    shape, dtype = constant.spec.shape, np.dtype(constant.spec.dtype)
    if constant.value is not None:
        return np.asarray(constant.value, dtype=dtype).reshape(shape)
    if role == "zero_point":
        return np.full(shape, 128 if dtype == np.uint8 else 0, dtype)
    if dtype.kind in "iu":
        if dtype not in (np.int8, np.uint8, np.int32):
            raise InvalidInput(name, constant.spec, "an integer constant that is not a weight needs a value")
        low, high = (0, 256) if dtype == np.uint8 else (-127, 128)
        return rng.integers(low, high, shape).astype(dtype)
    if role == "scale":
        # Scalar scales belong to activations; using the same scale everywhere avoids rescaling in pools and reshapes.
        drawn = rng.uniform(0.005, 0.01, shape) if shape else ACTIVATION_SCALE
        return np.asarray(drawn, dtype)
    if role == "shift":
        return (0.1 * rng.standard_normal(shape)).astype(dtype)
    if role == "weight":
        return (rng.standard_normal(shape) / math.sqrt(max(math.prod(shape[1:]), 1))).astype(dtype)
    return rng.uniform(0.5, 1.5, shape).astype(dtype)
