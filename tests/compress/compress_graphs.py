"""Small networks for tests, built node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from compress.importing.normalise import load_network
from compress.network import Network


class Graph:
    """A graph under construction; every method returns the name of the tensor it makes."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0, opset: int = 17) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def op(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=f"{name}_node", **attributes))
        return name

    def conv(self, x: str, name: str, channels: tuple[int, int], kernel: int = 3, **attributes: Any) -> str:
        """channels: (in, out)."""
        group = attributes.get("group", 1)
        fan_in = channels[0] // group * kernel**2
        shape = (channels[1], channels[0] // group, kernel, kernel)
        weight = self.constant(f"{name}.weight", self._normal(shape) * np.float32(np.sqrt(2 / fan_in)))
        bias = self.constant(f"{name}.bias", self._normal((channels[1],)) * np.float32(0.1))
        attributes.setdefault("pads", [kernel // 2] * 4)
        return self.op("Conv", [x, weight, bias], name, **attributes)

    def norm(self, x: str, name: str, width: int) -> str:
        """A batch norm with statistics of its own."""
        values = {
            "gamma": self.rng.uniform(0.5, 1.5, width),
            "beta": self.rng.normal(0, 0.2, width),
            "mean": self.rng.normal(0, 0.2, width),
            "variance": self.rng.uniform(0.5, 2.0, width),
        }
        names = [self.constant(f"{name}.{role}", value.astype(np.float32)) for role, value in values.items()]
        return self.op("BatchNormalization", [x, *names], name)

    def gemm(self, x: str, name: str, width: tuple[int, int]) -> str:
        """width: (in, out); the weight is stored (out, in)."""
        weight = self.constant(f"{name}.weight", self._normal((width[1], width[0])) * np.float32(width[0] ** -0.5))
        bias = self.constant(f"{name}.bias", self._normal((width[1],)) * np.float32(0.1))
        return self.op("Gemm", [x, weight, bias], name, transB=1)

    def relu(self, x: str, name: str) -> str:
        return self.op("Relu", [x], name)

    def pool_flat(self, x: str, name: str) -> str:
        return self.op("Flatten", [self.op("GlobalAveragePool", [x], f"{name}_pooled")], name)

    def network(self, output: str = "logits") -> Network:
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "test",
            [value("image", TensorProto.FLOAT, ["batch", *self.shape])],
            [value(output, TensorProto.FLOAT, ["batch", None])],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        return load_network(model.SerializeToString())

    def _normal(self, shape: tuple[int, ...]) -> Any:
        return self.rng.normal(size=shape).astype(np.float32)


def residual(seed: int = 0, norms: bool = False, width: int = 8, classes: int = 4) -> Network:
    """Two residual blocks of `width` channels on 3 x 8 x 8 images; the second one strided, with a 1x1 shortcut."""
    graph = Graph((3, 8, 8), seed)

    def layer(x: str, name: str, channels: tuple[int, int], **attributes: Any) -> str:
        y = graph.conv(x, name, channels, **attributes)
        return graph.norm(y, f"{name}_norm", channels[1]) if norms else y

    x = graph.relu(layer("image", "stem", (3, width)), "stem_relu")
    y = graph.relu(layer(x, "a1", (width, width)), "a1_relu")
    y = layer(y, "a2", (width, width))
    x = graph.relu(graph.op("Add", [y, x], "a_sum"), "a_relu")
    y = graph.relu(layer(x, "b1", (width, 2 * width), strides=[2, 2]), "b1_relu")
    y = layer(y, "b2", (2 * width, 2 * width))
    short = layer(x, "short", (width, 2 * width), kernel=1, strides=[2, 2])
    x = graph.relu(graph.op("Add", [y, short], "b_sum"), "b_relu")
    graph.gemm(graph.pool_flat(x, "flat"), "logits", (2 * width, classes))
    return graph.network()


def mobile(seed: int = 0, classes: int = 4) -> Network:
    """Depthwise separable, clipped at 6, with squeeze and excitation, concat and a max pool, on 3 x 8 x 8 images."""
    graph = Graph((3, 8, 8), seed)
    graph.constant("zero", np.float32(0))
    graph.constant("six", np.float32(6))
    x = graph.op("Clip", [graph.conv("image", "stem", (3, 8)), "zero", "six"], "stem_clip")
    x = graph.op("Clip", [graph.conv(x, "depthwise", (8, 8), group=8), "zero", "six"], "depthwise_clip")
    x = graph.conv(x, "point", (8, 12), kernel=1)
    gate = graph.op("GlobalAveragePool", [x], "squeeze")
    gate = graph.relu(graph.conv(gate, "reduce", (12, 4), kernel=1), "reduce_relu")
    gate = graph.op("Sigmoid", [graph.conv(gate, "expand", (4, 12), kernel=1)], "gate")
    x = graph.op("Mul", [x, gate], "gated")
    y = graph.op("LeakyRelu", [graph.conv(x, "branch", (12, 4))], "leaky", alpha=0.1)
    x = graph.op("Concat", [x, y], "joined", axis=1)
    x = graph.op("MaxPool", [x], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    graph.gemm(graph.pool_flat(x, "flat"), "logits", (16, classes))
    return graph.network()


def images(count: int, shape: tuple[int, ...] = (3, 8, 8), seed: int = 1) -> Any:
    """Random images (count, *shape) float32."""
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def walled(wall: str = "GroupNorm") -> Network:
    """Two convolutions on 3 x 8 x 8 images, with an op between them that has no row, and a third behind."""
    graph = Graph((3, 8, 8), opset=21)
    x = graph.relu(graph.conv("image", "stem", (3, 8)), "stem_relu")
    x = graph.relu(graph.conv(x, "early", (8, 8)), "early_relu")
    if wall == "GroupNorm":
        graph.constant("scale", np.ones(8, np.float32))
        graph.constant("shift", np.zeros(8, np.float32))
        x = graph.op("GroupNormalization", [x, "scale", "shift"], "wall", num_groups=2, epsilon=1e-5)
    else:
        x = graph.op(wall, [x], "wall")
    x = graph.relu(graph.conv(x, "late", (8, 8)), "late_relu")
    graph.gemm(graph.pool_flat(x, "flat"), "logits", (8, 4))
    return graph.network()
