"""Files as exporters and quantisers write them: old formats, left-out inputs, mixed batches, int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_graphs import Graph

from compress.errors import InvalidInput
from compress.evidence import Evidence
from compress.graph.cut import cut
from compress.graph.groups import prunable_blocks
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.normalise import load_network
from compress.importing.verify import verify
from compress.methods import int8_ptq
from compress.network import Network


def int8(network: Network, images: Any) -> Network:
    operator = int8_ptq.Int8Ptq(int8_ptq.Settings()).bind({int8_ptq.KNOB: "int8"})
    return operator.rewrite(network, Evidence(images=images))


def small(**settings: int) -> tuple[Graph, onnx.ModelProto]:
    g = Graph(3, 8, 8, **settings)
    return g, g.proto(g.head(g.op("Relu", g.conv("image", "a", 3, 6)), 6))


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_weights_that_are_inputs_too_are_weights_and_all_that_is_written_is_read_back(opset: int) -> None:
    g, proto = small(opset=opset)
    proto.ir_version = 3
    for weight in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    network = load_network(proto.SerializeToString())
    images = g.images(4)
    smaller = cut(network, {block.name: np.arange(2) for block in prunable_blocks(network)})
    for result in (network, smaller, int8(network, images), int8(smaller, images)):
        onnx.checker.check_model(onnx.load_from_string(result.save()), full_check=True)
        assert load_network(result.save()).save() == result.save()
        run_onnxruntime(result, images)


def test_a_resize_whose_unused_inputs_are_empty_is_taken() -> None:
    """torch wrote so up to opset 11: `interpolate(size=...)`."""
    g = Graph(3, 8, 8, opset=11)
    x = g.conv("image", "a", 3, 6)
    roi, scales = (g.constant(name, np.zeros(0, np.float32)) for name in ("roi", "scales"))
    kept = g.op("Slice", g.op("Shape", x), g.ints("from", 0), g.ints("to", 2))
    x = g.op("Resize", x, roi, scales, g.op("Concat", kept, g.ints("size", 4, 4), axis=0), mode="nearest")
    network = g.network(g.head(x, 6))
    assert network.shape(next(node for node in network.nodes if node.op_type == "Resize").outputs[0])[2:] == (4, 4)
    verify(network, g.images(3))


@pytest.mark.parametrize("op", [("Flatten", {"axis": 0}), ("Reshape", {})])
def test_a_batch_mixed_with_other_axes_is_named_with_what_to_do(op: tuple[str, dict[str, int]]) -> None:
    g = Graph(3, 8, 8)
    x = g.op("GlobalAveragePool", g.conv("image", "a", 3, 6))
    more = [g.ints("shape", -1, 1, 6)] if op[0] == "Reshape" else []
    x = g.op(op[0], x, *more, **op[1])
    if op[0] == "Reshape":
        x = g.op("Reshape", g.op("Transpose", x, perm=[1, 0, 2]), g.ints("flat", 1, -1, 1))
        x = g.op("Squeeze", x, g.ints("last", 2))
    mixing = g.nodes[-1 if op[0] == "Flatten" else -2].name
    with pytest.raises(InvalidInput) as caught:
        g.network(g.gemm(x, "head", 6, 5), batch=1)
    assert f"mixes the batch with other axes at node {mixing!r}" in str(caught.value)
    assert "Flatten(1)" in str(caught.value)
    assert "Inference" not in str(caught.value)


class Images:
    """What onnxruntime's quantiser reads its ranges off."""

    def __init__(self, images: Any) -> None:
        self.rest = [{"image": image[None]} for image in images]

    def get_next(self) -> dict[str, Any] | None:
        return self.rest.pop() if self.rest else None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(6))
def test_a_file_that_onnxruntime_quantised_is_taken(seed: int, tmp_path: Path) -> None:
    """Two runtimes may round to levels beside each other: a step of the scale, and no disagreement."""
    from onnxruntime.quantization import QuantFormat, quantize_static

    g = Graph(3, 16, 16, seed=seed, opset=17)
    x = g.op("Relu", g.conv("image", "stem", 3, 8))
    for block in range(3):
        inner = g.op("Relu", g.conv(x, f"{block}.first", 8, 8))
        x = g.op("Relu", g.op("Add", x, g.conv(inner, f"{block}.second", 8, 8)))
    proto = g.proto(g.head(x, 8))
    onnx.save(proto, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", Images(g.images(16)), QuantFormat.QDQ, per_channel=True
    )
    network = load_network(tmp_path / "int8.onnx")
    assert TensorProto.INT8 in {tensor.data_type for tensor in network.to_proto().graph.initializer}
    verify(network, g.images(8))
