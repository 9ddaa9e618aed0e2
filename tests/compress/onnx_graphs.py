"""Small ONNX graphs for tests, written as lists of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.importing.normalise import load_network
from compress.network import Network

NodeSpec = tuple[str, list[str], list[str], dict[str, Any]]


class Graph:
    """Collects nodes and random weights; every method returns the name of the tensor it makes."""

    def __init__(self, *shape: int, seed: int = 0, opset: int = 18) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape, self.opset = shape, opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray[Any, Any]] = {}

    def op(self, op_type: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        name = f"{op_type.lower()}{len(self.nodes)}"
        made = [f"{name}_{i}" if outputs > 1 else f"{name}_out" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, made, name=name, domain=domain, **attributes))
        return made if outputs > 1 else made[0]

    def constant(self, name: str, value: Any) -> str:
        self.weights[name] = np.asarray(value)
        return name

    def random(self, name: str, *shape: int) -> str:
        scale = max(np.sqrt(np.prod(shape[1:])), 1.0)
        return self.constant(name, (self.rng.normal(size=shape) / scale).astype(np.float32))

    def conv(
        self, x: str, name: str, into: int, out: int, kernel: int = 3, bias: bool = True, **attributes: Any
    ) -> str:
        groups = attributes.get("group", 1)
        inputs = [x, self.random(f"{name}.weight", out, into // groups, kernel, kernel)]
        if bias:
            inputs.append(self.random(f"{name}.bias", out))
        attributes.setdefault("pads", [kernel // 2] * 4)
        return str(self.op("Conv", *inputs, kernel_shape=[kernel, kernel], **attributes))

    def norm(self, x: str, name: str, width: int) -> str:
        scale, bias, mean = (self.random(f"{name}.{part}", width) for part in ("weight", "bias", "mean"))
        var = self.constant(f"{name}.var", self.rng.uniform(0.5, 2.0, width).astype(np.float32))
        return str(self.op("BatchNormalization", x, scale, bias, mean, var))

    def gemm(self, x: str, name: str, into: int, out: int) -> str:
        weight, bias = self.random(f"{name}.weight", out, into), self.random(f"{name}.bias", out)
        return str(self.op("Gemm", x, weight, bias, transB=1))

    def head(self, x: str, width: int, classes: int = 5) -> str:
        return self.gemm(self.op("Flatten", self.op("GlobalAveragePool", x)), "head", width, classes)

    def ints(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, dtype=np.int64))

    def proto(self, *outputs: str, batch: int | str = "N") -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, *self.shape])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "classes"]) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def network(self, *outputs: str, batch: int | str = "N") -> Network:
        return load_network(self.proto(*outputs, batch=batch).SerializeToString())

    def images(self, count: int = 4) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self.rng.normal(size=(count, *self.shape)).astype(np.float32)
