"""What onnxruntime makes of small networks, one test for each topology."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.errors import InvalidInput
from hw_profiles.runtimes.onnxruntime.engine import OnnxRuntime


class Net:
    """Writes a small network; a node is named for its output."""

    def __init__(self, *shape: int) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._input = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
        self._rng = np.random.default_rng(0)

    def add(self, op_type: str, inputs: str, output: str, **attributes: object) -> str:
        outputs = output.split()
        self._nodes.append(helper.make_node(op_type, inputs.split(), outputs, name=outputs[0], **attributes))
        return outputs[0]

    def constant(self, name: str, value: object, dtype: str = "float32") -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def conv(self, source: str, output: str, into: int = 16, out: int = 16, k: int = 3, **attributes: object) -> str:
        self.constant(f"{output}.w", self._rng.standard_normal((out, into, k, k)) / 10)
        return self.add("Conv", f"{source} {output}.w", output, pads=[k // 2] * 4, **attributes)

    def norm(self, source: str, output: str, channels: int = 16) -> str:
        names = [self.constant(f"{output}.{part}", np.ones(channels)) for part in ("scale", "shift", "mean", "var")]
        return self.add("BatchNormalization", " ".join([source, *names]), output)

    def quantised(self, source: str, output: str, zero: int = 128) -> str:
        """`source` through a QuantizeLinear; returns its tensor."""
        self.constant(f"{output}.s", 0.05)
        self.constant(f"{output}.z", zero, "uint8")
        return self.add("QuantizeLinear", f"{source} {output}.s {output}.z", output)

    def read(self, quantised: str, output: str) -> str:
        return self.add("DequantizeLinear", f"{quantised} {quantised}.s {quantised}.z", output)

    def qconv(self, source: str, output: str, into: int = 16) -> str:
        self.constant(f"{output}.w", self._rng.integers(-127, 127, (16, into, 3, 3)), "int8")
        self.constant(f"{output}.ws", np.full(16, 0.01))
        self.constant(f"{output}.wz", np.zeros(16), "int8")
        self.add("DequantizeLinear", f"{output}.w {output}.ws {output}.wz", f"{output}.read", axis=0)
        return self.add("Conv", f"{source} {output}.read", output, pads=[1, 1, 1, 1])

    def fused(self, output: str, *shape: int) -> list[set[str]]:
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "net", [self._input], [result], self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        sets = [set(names) for names in OnnxRuntime().fused(model.SerializeToString())]
        assert sorted(name for names in sets for name in names) == sorted(node.name for node in self._nodes)
        return sets


def test_conv_norm_relu_and_residual_add() -> None:
    net = Net(1, 3, 8, 8)
    net.add("Relu", net.norm(net.conv("image", "c1", into=3), "n1"), "r1")
    net.add("Relu", net.norm(net.conv("r1", "c2"), "n2"), "r2")
    net.norm(net.conv("r2", "c3"), "n3")
    net.add("Add", "n3 r1", "a3")
    net.add("Relu", "a3", "r3")
    net.conv("r3", "c4")
    assert net.fused("c4", 1, 16, 8, 8) == [{"c1", "n1", "r1"}, {"c2", "n2", "r2"}, {"c3", "n3", "a3", "r3"}, {"c4"}]


def test_a_sliced_and_padded_shortcut_breaks_the_fusion_behind_it() -> None:
    net = Net(1, 16, 8, 8)
    net.add("Relu", net.conv("image", "c1"), "r1")
    for name, value in (("st", [0, 0]), ("en", [99, 99]), ("ax", [2, 3]), ("sp", [2, 2])):
        net.constant(name, value, "int64")
    net.add("Slice", "r1 st en ax sp", "sliced")
    net.constant("pads", [0, 8, 0, 0, 0, 8, 0, 0], "int64")
    net.add("Pad", "sliced pads", "padded")
    net.conv("r1", "c2", out=32, strides=[2, 2])
    net.add("Add", "c2 padded", "a2")
    net.add("Relu", "a2", "r2")
    sets = net.fused("r2", 1, 32, 4, 4)
    assert {"c1", "r1"} in sets
    assert all({name} in sets for name in ("c2", "sliced", "padded", "a2", "r2"))


def test_quantised_blocks_take_in_their_casts() -> None:
    net = Net(1, 16, 8, 8)
    net.quantised("image", "q0")
    net.add("Relu", net.qconv(net.read("q0", "d0"), "c1"), "r1")
    net.quantised("r1", "q1", zero=0)
    net.quantised(net.qconv(net.read("q1", "d1"), "c2"), "q2")
    net.add("Add", f"{net.read('q2', 'd2')} {net.read('q1', 'd1_of_the_shortcut')}", "a3")
    net.add("Relu", "a3", "r3")
    net.quantised("r3", "q3", zero=0)
    net.add("GlobalAveragePool", net.read("q3", "d3"), "p4")
    net.quantised("p4", "q4", zero=0)
    net.read("q4", "out")
    assert net.fused("out", 1, 16, 1, 1) == [
        {"q0"},
        {"d0", "c1.read", "c1", "r1", "q1"},
        {"d1", "c2.read", "c2", "q2"},
        {"d2", "d1_of_the_shortcut", "a3", "r3", "q3"},
        {"d3", "p4", "q4"},
        {"out"},
    ]


def test_an_op_that_runs_as_its_function_keeps_its_kernel() -> None:
    net = Net(1, 16, 8, 8)
    net.conv("image", "c1")
    net.add("HardSwish", "c1", "h1")
    net.norm(net.conv("h1", "c2"), "n2")
    net.add("Add", "c1 n2", "a")  # the second reader keeps the convolution from taking HardSwish in
    assert sorted(map(sorted, net.fused("a", 1, 16, 8, 8))) == [["a", "c2", "n2"], ["c1"], ["h1"]]


@pytest.mark.parametrize("activation", ["Relu", "HardSwish", "Sigmoid"])
def test_an_activation_behind_a_conv_or_a_sum_runs_with_it(activation: str) -> None:
    net = Net(1, 16, 8, 8)
    net.add(activation, net.conv("image", "c1"), "r1")
    net.conv("r1", "c2")
    net.add("Add", "c2 r1", "a2")
    net.add(activation, "a2", "r2")
    net.conv("r2", "c3")
    sets = net.fused("c3", 1, 16, 8, 8)
    assert {"c1", "r1"} in sets
    assert {"c2", "a2", "r2"} in sets


def test_silu_written_out() -> None:
    net = Net(1, 16, 8, 8)
    net.conv("image", "c1")
    net.add("Sigmoid", "c1", "s1")
    net.add("Mul", "c1 s1", "m1")
    net.conv("m1", "c2")
    assert net.fused("c2", 1, 16, 8, 8) == [{"c1"}, {"s1", "m1"}, {"c2"}]


def test_gelu_written_out_is_one_kernel() -> None:
    net = Net(1, 4, 64)
    net.constant("w", np.ones((64, 64)) / 64)
    net.add("MatMul", "image w", "m")
    net.constant("root", np.sqrt(2.0))
    net.add("Div", "m root", "d")
    net.add("Erf", "d", "e")
    net.constant("one", 1.0)
    net.add("Add", "e one", "a")
    net.add("Mul", "m a", "b")
    net.constant("half", 0.5)
    net.add("Mul", "b half", "g")
    assert net.fused("g", 1, 4, 64) == [{"m"}, {"d", "e", "a", "b", "g"}]


def test_a_transpose_folded_into_a_layout_change_is_a_kernel() -> None:
    net = Net(1, 16, 8, 8)
    net.conv("image", "c1")
    net.add("Transpose", "c1", "t", perm=[0, 2, 3, 1])
    net.add("Sigmoid", "t", "s")
    assert net.fused("s", 1, 8, 8, 16) == [{"c1"}, {"t"}, {"s"}]


def test_what_is_folded_away_is_with_its_reader() -> None:
    net = Net(1, 16, 8, 8)
    net.conv("image", "c1")
    net.add("Identity", "c1", "same")
    net.constant("shape", [1, 4, 1, 1], "int64")
    net.constant("w2", np.ones((1, 1, 4, 4)), "float32")
    net.add("Sqrt", "w2", "root")
    net.add("MaxPool", "same", "p", kernel_shape=[2, 2], strides=[2, 2])
    net.add("Add", "p root", "y")
    assert net.fused("y", 1, 16, 4, 4) == [{"c1"}, {"same", "p"}, {"root", "y"}]


def test_a_tensor_named_like_a_kernel_confuses_nobody() -> None:
    net = Net(1, 16, 8, 8)
    net.add("Relu", net.conv("image", "c2_nchwc"), "reorder_token_0")
    net.conv("reorder_token_0", "c1")
    assert net.fused("c1", 1, 16, 8, 8) == [{"c2_nchwc", "reorder_token_0"}, {"c1"}]


def test_a_node_with_a_subgraph_is_refused() -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["y"])], "inner", [], [onnx.ValueInfoProto(name="y")]
    )
    net = Net(1, 4)
    net.constant("condition", True, "bool")
    net.add("If", "condition", "out", then_branch=inner, else_branch=inner)
    with pytest.raises(InvalidInput, match="subgraph"):
        net.fused("out", 1, 4)
