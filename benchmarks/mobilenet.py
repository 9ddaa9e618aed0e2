"""MobileNetV2 in its form for CIFAR (Sandler et al. 2018, arXiv 1801.04381): 91 M MACs on images of 32x32.

Its weights are random, so it serves figures of time only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIDE, CLASSES, STEM, HEAD = 32, 10, 32, 1280
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, output channels, number of blocks and stride of each stage; the strides are those for small images."""


class Drawn:
    """The nodes so far, and their constants with random values."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._constant("six", np.float32(6.0))
        self._constant("zero", np.float32(0.0))

    def conv(
        self, name: str, read: str, shape: tuple[int, int], kernel: int = 1, stride: int = 1, act: bool = True
    ) -> str:
        """Add a convolution of `shape` (inputs, outputs) with a norm and, if `act`, a ReLU6; return its output. A
        convolution with one input per filter is depthwise.
        """
        inputs, outputs = shape
        weight = self._rng.standard_normal((outputs, inputs, kernel, kernel)) * (2 / (inputs * kernel**2)) ** 0.5
        self._constant(f"{name}.weight", weight)
        for role, value in {"gamma": 1.0, "beta": 0.1, "mean": 0.0, "variance": 1.0}.items():
            self._constant(f"{name}.{role}", np.full(outputs, value))
        groups = outputs if inputs == 1 else 1
        facts: dict[str, Any] = {"pads": [kernel // 2] * 4, "strides": [stride] * 2, "group": groups}
        self._node("Conv", [read, f"{name}.weight"], f"{name}/raw", **facts)
        norm = [f"{name}.{role}" for role in ("gamma", "beta", "mean", "variance")]
        self._node("BatchNormalization", [f"{name}/raw", *norm], f"{name}/normed")
        return self._node("Clip", [f"{name}/normed", "zero", "six"], f"{name}/out") if act else f"{name}/normed"

    def block(self, name: str, read: str, widths: tuple[int, int], expansion: int, stride: int) -> str:
        """Add an inverted residual block of `widths` (inputs, outputs); return its output."""
        inputs, outputs = widths
        inner, seen = inputs * expansion, read
        if expansion > 1:
            seen = self.conv(f"{name}.expand", seen, (inputs, inner))
        seen = self.conv(f"{name}.depthwise", seen, (1, inner), 3, stride)
        seen = self.conv(f"{name}.project", seen, (inner, outputs), act=False)
        return self._node("Add", [seen, read], f"{name}/sum") if stride == 1 and inputs == outputs else seen

    def linear(self, read: str, inputs: int) -> str:
        """Add a global pool and the classifier; return the logits."""
        self._constant("head.weight", 0.05 * self._rng.standard_normal((CLASSES, inputs)))
        self._constant("head.bias", np.zeros(CLASSES))
        pooled = self._node("GlobalAveragePool", [read], "pooled")
        flat = self._node("Flatten", [pooled], "flat")
        return self._node("Gemm", [flat, "head.weight", "head.bias"], "logits", transB=1)

    def _constant(self, name: str, value: Any) -> None:
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], f"{output}/{op}", **attributes))
        return output


def mobilenet(seed: int = 0) -> ModelProto:
    """Return the network, from images (batch, 3, 32, 32) to logits (batch, 10), with its batch norms."""
    drawn, width = Drawn(seed), STEM
    read = drawn.conv("stem", "image", (3, STEM), 3)
    for stage, (expansion, outputs, count, stride) in enumerate(STAGES):
        for number in range(count):
            read = drawn.block(f"{stage}.{number}", read, (width, outputs), expansion, stride if number == 0 else 1)
            width = outputs
    drawn.linear(drawn.conv("last", read, (width, HEAD)), HEAD)
    images = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(drawn.nodes, "mobilenetv2", [images], [logits], drawn.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
