"""Small residual networks at any widths, as ops and as an ONNX file made of the very same blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from hw_blocks import CONV, block, node
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.ops import Op
from hw_profiles.timing.random_constants import random_constants
from hw_profiles.timing.timing_model import block_nodes, output_specs

SIZE = 32


def convolution(into: int, out: int, size: int, stride: int = 1, k: int = 3, relu: bool = True, made: str = CONV) -> Op:
    nodes = [node("Conv", "a w", "t" if relu else "y", pads=(k // 2,) * 4, strides=(stride, stride))]
    nodes += [node("Relu", "t", "y")] if relu else []
    return block(nodes, {"a": ((1, into, size, size), made)}, {"w": (out, into, k, k)})


def sum_block(into: int, out: int, size: int) -> Op:
    nodes = [node("Conv", "a w", "c", pads=(1, 1, 1, 1)), node("Add", "c r", "s"), node("Relu", "s", "y")]
    shapes = {"a": ((1, into, size, size), CONV), "r": ((1, out, size, size), CONV)}
    return block(nodes, shapes, {"w": (out, into, 3, 3)})


@dataclass
class ResidualNetwork:
    """Stem, then stages of two convolutions with a shortcut; `widths` are (stream, inner) of each stage."""

    widths: tuple[tuple[int, int], ...]
    blocks: list[tuple[Op, tuple[str, ...], str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        stream, size = self.widths[0][0], SIZE
        self._add(convolution(3, stream, size, made="input"), ("image",), "stem")
        here = "stem"
        for number, (out, inner) in enumerate(self.widths):
            stride = 1 if number == 0 else 2
            first = f"{number}a"
            self._add(convolution(stream, inner, size, stride), (here,), first)
            shortcut = here
            if stride == 2:
                shortcut = f"{number}s"
                self._add(convolution(stream, out, size, stride, k=1, relu=False), (here,), shortcut)
                size //= 2
            self._add(sum_block(inner, out, size), (first, shortcut), f"{number}b")
            stream, here = out, f"{number}b"

    def _add(self, op: Op, inputs: tuple[str, ...], output: str) -> None:
        self.blocks.append((op, inputs, output))

    @property
    def ops(self) -> list[Op]:
        return [op for op, _, _ in self.blocks]

    def model(self) -> bytes:
        rng = np.random.default_rng(0)
        nodes: list[onnx.NodeProto] = []
        constants = []
        for op, inputs, output in self.blocks:
            names = {"": "", "y0": output, **{f"x{i}": name for i, name in enumerate(inputs)}}
            names |= {name: f"{output}/{name}" for n in op.nodes for name in n.outputs if name != "y0"}
            for index, value in enumerate(random_constants(op, rng)):
                names[f"w{index}"] = f"{output}/w{index}"
                constants.append(numpy_helper.from_array(value, f"{output}/w{index}"))
            nodes += block_nodes(op, names, f"{output}/")
        last, _, result = self.blocks[-1]
        shape = output_specs(last)[0].shape
        graph = helper.make_graph(
            nodes,
            "residual",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, SIZE, SIZE))],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, shape)],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        serialised: bytes = model.SerializeToString()
        return serialised


def random_networks(
    count: int, seed: int, step: int = 4, stages: tuple[int, ...] = (16, 32, 64)
) -> list[ResidualNetwork]:
    """Networks whose widths are drawn from a quarter to all of `stages`, in multiples of `step`."""
    rng = np.random.default_rng(seed)

    def width(most: int) -> int:
        return int(rng.choice(np.arange(most // 4, most + 1, step)))

    return [ResidualNetwork(tuple((width(most), width(most)) for most in stages)) for _ in range(count)]
