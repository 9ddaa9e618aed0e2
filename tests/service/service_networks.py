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
