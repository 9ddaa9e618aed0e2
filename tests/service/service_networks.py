"""Small networks as the bytes of ONNX files, built by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper


def model_of(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, tuple[int, ...]],
    output: tuple[int, ...],
    weights: Sequence[TensorProto] = (),
) -> bytes:
    """A model whose output is `logits`; shapes are without the batch."""

    def value(name: str, shape: tuple[int, ...]) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    values = [value(name, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(list(nodes), "test", values, [value("logits", output)], list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def classifier(seed: int = 0, odd_op: str | None = None, width: int = 12, odd_at: int = 0) -> bytes:
    """Three convolutions and a linear layer: image (3, 16, 16) -> 10 logits. `odd_op` follows one of them."""
    rng = np.random.default_rng(seed)
    weights, nodes, made, channels = [], [], "image", 3
    for number in range(3):
        kernel = rng.standard_normal((width, channels, 3, 3)).astype(np.float32) / 10
        weights.append(numpy_helper.from_array(kernel, f"conv{number}.weight"))
        conv, act = f"conv{number}", f"act{number}"
        nodes.append(helper.make_node("Conv", [made, f"{conv}.weight"], [conv], conv, pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node(odd_op if odd_op and number == odd_at else "Relu", [conv], [act], act))
        made, channels = act, width
    weights.append(numpy_helper.from_array(rng.standard_normal((10, width)).astype(np.float32), "head.weight"))
    nodes.append(helper.make_node("GlobalAveragePool", [made], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"))
    nodes.append(helper.make_node("Gemm", ["flat", "head.weight"], ["logits"], "head", transB=1))
    return model_of(nodes, {"image": (3, 16, 16)}, (10,), weights)


def option_a(seed: int = 0, width: int = 16) -> bytes:
    """A block with an option-A shortcut, every second pixel and zeros for new channels: image (3, 16, 16) -> 2 logits.

    Two Slices and a Pad, which a lossless rewrite makes one strided convolution of.
    """
    rng = np.random.default_rng(seed)
    shapes = {"stem": (width, 3, 3, 3), "first": (2 * width, width, 3, 3), "second": (2 * width, 2 * width, 3, 3)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 10, f"{name}.weight")
        for name, shape in shapes.items()
    ]
    weights.append(numpy_helper.from_array(rng.standard_normal((2, 2 * width)).astype(np.float32), "head.weight"))
    numbers = {"from": [0], "to": [2**31], "rows": [2], "columns": [3], "step": [2]}
    numbers["pads"] = [0, width // 2, 0, 0, 0, width - width // 2, 0, 0]
    weights += [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in numbers.items()]
    near = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "stem.weight"], ["stem"], "stem", **near),
        helper.make_node("Relu", ["stem"], ["stream"], "stem_relu"),
        helper.make_node("Conv", ["stream", "first.weight"], ["first"], "first", strides=[2, 2], **near),
        helper.make_node("Relu", ["first"], ["inner"], "first_relu"),
        helper.make_node("Conv", ["inner", "second.weight"], ["second"], "second", **near),
        helper.make_node("Slice", ["stream", "from", "to", "rows", "step"], ["half"], "every_second_row"),
        helper.make_node("Slice", ["half", "from", "to", "columns", "step"], ["quarter"], "every_second_column"),
        helper.make_node("Pad", ["quarter", "pads"], ["short"], "new_channels"),
        helper.make_node("Add", ["second", "short"], ["sum"], "sum"),
        helper.make_node("Relu", ["sum"], ["end"], "sum_relu"),
        helper.make_node("GlobalAveragePool", ["end"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "head.weight"], ["logits"], "head", transB=1),
    ]
    return model_of(nodes, {"image": (3, 16, 16)}, (2,), weights)
