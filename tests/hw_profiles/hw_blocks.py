"""Blocks of many kinds, as the tests of hw_profiles time and predict them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hw_profiles.ops import Constant, Op, OpNode, TensorSpec
from hw_profiles.runtimes.onnxruntime.layouts import layout

CONV = "conv+relu"
QCONV = "dequantizelinear+conv+relu+quantizelinear"


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> OpNode:
    """A node with tensors separated by blanks; `-` is an absent input."""
    names = tuple("" if name == "-" else name for name in inputs.split())
    return OpNode(op_type, names, tuple(outputs.split()), tuple(attributes.items()))


def block(
    nodes: Sequence[OpNode],
    inputs: dict[str, tuple[tuple[int, ...], str]],
    weights: dict[str, tuple[int, ...]] | None = None,
    values: dict[str, tuple[Any, str]] | None = None,
    outputs: str = "y",
    dtype: str = "float32",
) -> Op:
    """An op of float activations (or `dtype`), random weights and constants with (value, dtype)."""
    constants = {name: Constant(TensorSpec(shape)) for name, shape in (weights or {}).items()}
    for name, (value, kind) in (values or {}).items():
        shape = (len(value),) if isinstance(value, tuple) else ()
        constants[name] = Constant(TensorSpec(shape, kind), value)
    specs = {name: (TensorSpec(shape, dtype), producer) for name, (shape, producer) in inputs.items()}
    return Op.of(nodes, specs, constants, outputs.split(), 17, layout)


def conv(
    into: int = 16, out: int = 16, size: int = 8, k: int = 3, stride: int = 1, relu: bool = True, producer: str = CONV
) -> Op:
    pads = (k // 2,) * 4
    nodes = [node("Conv", "a w b", "t" if relu else "y", pads=pads, strides=(stride, stride))]
    nodes += [node("Relu", "t", "y")] if relu else []
    return block(nodes, {"a": ((1, into, size, size), producer)}, {"w": (out, into, k, k), "b": (out,)})


def residual(into: int = 16, out: int = 16, size: int = 8) -> Op:
    """conv + batch norm + add + relu: two inputs."""
    nodes = [
        node("Conv", "a w", "c", pads=(1, 1, 1, 1)),
        node("BatchNormalization", "c scale shift mean var", "n", epsilon=1e-5),
        node("Add", "n r", "s"),
        node("Relu", "s", "y"),
    ]
    shape = (1, out, size, size)
    norm = dict.fromkeys(("scale", "shift", "mean", "var"), (out,))
    return block(nodes, {"a": ((1, into, size, size), CONV), "r": (shape, CONV)}, {"w": (out, into, 3, 3), **norm})


def qconv(into: int = 16, out: int = 16, size: int = 8) -> Op:
    """A quantised conv + relu: uint8 in and out, int8 weights per channel, int32 bias."""
    nodes = [
        node("DequantizeLinear", "a a_s a_z", "ad"),
        node("DequantizeLinear", "w w_s w_z", "wd", axis=0),
        node("DequantizeLinear", "b b_s b_z", "bd", axis=0),
        node("Conv", "ad wd bd", "c", pads=(1, 1, 1, 1)),
        node("Relu", "c", "r"),
        node("QuantizeLinear", "r y_s y_z", "y"),
    ]
    specs = {
        "a_s": TensorSpec(()), "a_z": TensorSpec((), "uint8"), "y_s": TensorSpec(()),
        "w": TensorSpec((out, into, 3, 3), "int8"), "w_s": TensorSpec((out,)), "w_z": TensorSpec((out,), "int8"),
        "b": TensorSpec((out,), "int32"), "b_s": TensorSpec((out,)), "b_z": TensorSpec((out,), "int32"),
    }  # fmt: skip
    constants = {name: Constant(spec) for name, spec in specs.items()}
    constants["y_z"] = Constant(TensorSpec((), "uint8"), 0)
    constants["b_z"] = (
        Constant(TensorSpec((out,), "int32")) if out > 64 else Constant(TensorSpec((out,), "int32"), (0,) * out)
    )
    return Op.of(nodes, {"a": (TensorSpec((1, into, size, size), "uint8"), QCONV)}, constants, ["y"], 17, layout)


def qadd(size: int = 8) -> Op:
    nodes = [
        node("DequantizeLinear", "a s za", "ad"),
        node("DequantizeLinear", "b s zb", "bd"),
        node("Add", "ad bd", "c"),
        node("Relu", "c", "r"),
        node("QuantizeLinear", "r s zy", "y"),
    ]
    zeros = {name: Constant(TensorSpec((), "uint8"), 0) for name in ("za", "zb", "zy")}
    shape = TensorSpec((1, 16, size, size), "uint8")
    return Op.of(
        nodes, {"a": (shape, QCONV), "b": (shape, QCONV)}, {"s": Constant(TensorSpec(())), **zeros}, ["y"], 17, layout
    )


S4 = (1, 16, 8, 8)
X = {"a": (S4, CONV)}

BLOCKS: dict[str, Op] = {
    "conv": conv(),
    "stem": conv(into=3, producer="input"),
    "pointwise": conv(k=1, relu=False),
    "strided": conv(out=32, stride=2),
    "conv, batch norm, add, relu": residual(),
    "depthwise": block(
        [node("Conv", "a w", "t", group=16, pads=(1, 1, 1, 1)), node("Clip", "t lo hi", "y")],
        X, {"w": (16, 1, 3, 3)}, {"lo": (0.0, "float32"), "hi": (6.0, "float32")},
    ),
    "grouped": block([node("Conv", "a w", "y", group=4)], X, {"w": (16, 4, 1, 1)}),
    "dilated": block([node("Conv", "a w", "y", dilations=(2, 2), pads=(2, 2, 2, 2))], X, {"w": (16, 16, 3, 3)}),
    "gemm": block([node("Gemm", "a w b", "y", transB=1)], {"a": ((1, 64), "reshape")}, {"w": (10, 64), "b": (10,)}),
    "gemm, relu": block(
        [node("Gemm", "a w b", "t"), node("Relu", "t", "y")], {"a": ((1, 64), "gemm")}, {"w": (64, 10), "b": (10,)}
    ),
    "matmul": block([node("MatMul", "a w", "y")], {"a": ((1, 5, 64), "add")}, {"w": (64, 32)}),
    "max pool": block([node("MaxPool", "a", "y", kernel_shape=(2, 2), strides=(2, 2))], X),
    "average pool": block([node("AveragePool", "a", "y", kernel_shape=(2, 2), strides=(2, 2))], X),
    "global pool": block([node("GlobalAveragePool", "a", "y")], X),
    "relu": block([node("Relu", "a", "y")], {"a": (S4, "add")}),
    "hard swish": block([node("HardSwish", "a", "y")], X),
    "add": block([node("Add", "a b", "y")], {"a": (S4, "conv"), "b": (S4, "pad")}),
    "multiply by channel": block([node("Mul", "a b", "y")], {"a": (S4, "relu"), "b": ((1, 16, 1, 1), "sigmoid")}),
    "add one tensor twice": block([node("Add", "a a", "y")], {"a": (S4, "relu")}),
    "slice": block(
        [node("Slice", "a st en ax sp", "y")], X,
        values={"st": ((0, 0), "int64"), "en": ((99, 99), "int64"), "ax": ((2, 3), "int64"), "sp": ((2, 2), "int64")},
    ),
    "pad": block(
        [node("Pad", "a p", "y")], {"a": (S4, "slice")}, values={"p": ((0, 8, 0, 0, 0, 8, 0, 0), "int64")}
    ),
    "concat": block([node("Concat", "a b", "y", axis=1)], {"a": (S4, CONV), "b": (S4, CONV)}),
    "split": block(
        [node("Split", "a n", "y z", axis=1)], X, values={"n": ((4, 12), "int64")}, outputs="y z"
    ),
    "reshape": block([node("Reshape", "a n", "y")], X, values={"n": ((1, -1), "int64")}),
    "flatten": block([node("Flatten", "a", "y")], {"a": ((1, 16, 1, 1), "globalaveragepool")}),
    "transpose": block([node("Transpose", "a", "y", perm=(0, 2, 3, 1))], X),
    "mean": block([node("ReduceMean", "a", "y", axes=(2, 3), keepdims=0)], X),
    "softmax": block([node("Softmax", "a", "y", axis=1)], {"a": ((1, 10), "gemm")}),
    "quantised conv": qconv(),
    "quantised add": qadd(),
    "quantise": block(
        [node("QuantizeLinear", "a s z", "y")], {"a": ((1, 3, 8, 8), "input")},
        {"s": ()}, {"z": (128, "uint8")},
    ),
}  # fmt: skip
