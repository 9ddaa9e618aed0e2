from __future__ import annotations

import json

import pytest
from hw_blocks import BLOCKS, CONV, QCONV, block, conv, node, qconv, residual

from hw_profiles.errors import InvalidInput
from hw_profiles.ops import MAX_VALUE_ELEMENTS, Constant, Op, OpNode, TensorSpec
from hw_profiles.runtimes.onnxruntime.layouts import layout as layout_of_onnxruntime
from hw_profiles.tables.features import features_of


def test_names_do_not_reach_the_key() -> None:
    one = block([node("Conv", "a w", "t"), node("Relu", "t", "y")], {"a": ((1, 8, 4, 4), CONV)}, {"w": (8, 8, 1, 1)})
    other = block(
        [node("Conv", "image kernel", "inner"), node("Relu", "inner", "y")],
        {"image": ((1, 8, 4, 4), "conv+add+relu")},
        {"kernel": (8, 8, 1, 1)},
    )
    assert one == other
    assert one.key == other.key
    assert [n.inputs for n in one.nodes] == [("x0", "w0"), ("t0",)]


def test_everything_the_kernel_looks_at_reaches_the_key() -> None:
    ops = [
        conv(), conv(into=8), conv(out=8), conv(size=4), conv(k=1), conv(stride=2), conv(relu=False),
        conv(producer="input"), conv(producer="slice"), residual(), qconv(),
    ]  # fmt: skip
    assert len({op.key for op in ops}) == len(ops)


def test_the_key_is_stable_across_versions_of_the_code() -> None:
    # a change here throws every stored table away: make it knowingly
    op = Op.of([OpNode("Relu", ("a",), ("y",))], {"a": (TensorSpec((1, 2)), "gemm")}, {}, ["y"], 17)
    assert op.key == "53d4042312d5255874ddba9c27fd8c332a1698febef9cdd260060e79d4f49742"


@pytest.mark.parametrize("name", BLOCKS)
def test_json_round_trip(name: str) -> None:
    op = BLOCKS[name]
    again = Op.from_json(json.loads(json.dumps(op.to_json())))
    assert again == op
    assert again.key == op.key


def test_infinite_bounds_survive_json() -> None:
    op = block([node("Clip", "a lo", "y")], {"a": ((1, 4), "gemm")}, values={"lo": (float("-inf"), "float32")})
    again = Op.from_json(json.loads(json.dumps(op.to_json(), allow_nan=False)))
    assert again.constants[0].value == float("-inf")
    assert again.key == op.key


def test_scales_and_middle_zero_points_are_forgotten() -> None:
    def quantised(scale: float, zero: int) -> Op:
        return block(
            [node("QuantizeLinear", "a s z", "y")],
            {"a": ((1, 4), "gemm")},
            values={"s": (scale, "float32"), "z": (zero, "uint8")},
        )

    assert quantised(0.1, 117).key == quantised(0.2, 128).key
    assert quantised(0.1, 0).key != quantised(0.1, 128).key  # a ReLU before it would vanish


@pytest.mark.parametrize(
    ("spec", "made_by", "layout"),
    [
        (TensorSpec((1, 8, 4, 4)), "conv+batchnormalization+relu", "blocked"),
        (TensorSpec((1, 8, 4, 4)), "maxpool", "blocked"),
        (TensorSpec((1, 8, 4, 4)), "add", "plain"),
        (TensorSpec((1, 8, 4, 4)), "slice", "plain"),
        (TensorSpec((1, 8, 4, 4), "uint8"), QCONV, "blocked"),
        (TensorSpec((1, 8, 4, 4), "uint8"), "dequantizelinear+add+quantizelinear", "blocked"),
        (TensorSpec((1, 8)), "conv+relu", "plain"),
        (TensorSpec((1, 8, 4, 4), "int64"), "conv", "plain"),
        (TensorSpec((1, 8, 4, 4)), "input", "input"),
    ],
)
def test_layout_of_a_tensor(spec: TensorSpec, made_by: str, layout: str) -> None:
    assert layout_of_onnxruntime(spec, made_by) == layout


def test_features_of_a_convolution() -> None:
    features = features_of(conv(into=16, out=32, size=8, k=3, stride=2))
    assert features["kind"] == "conv+relu"
    assert (features["in_channels"], features["out_channels"]) == (16, 32)
    assert (features["kernel"], features["stride"], features["height"], features["width"]) == (3, 2, 4, 4)
    assert features["macs"] == 32 * 4 * 4 * 16 * 9
    assert features["weight_bytes"] == 4 * (32 * 16 * 9 + 32)
    assert features["io_bytes"] == 4 * (16 * 64 + 32 * 16)


def test_features_look_through_quantisation() -> None:
    features = features_of(qconv(into=16, out=32, size=8))
    assert features["kind"] == "conv+relu"
    assert (features["in_channels"], features["out_channels"], features["dtype"]) == (16, 32, "uint8")
    assert features["macs"] == 32 * 64 * 16 * 9


def test_features_of_other_blocks() -> None:
    assert features_of(BLOCKS["depthwise"])["kind"] == "dwconv+clip"
    assert features_of(BLOCKS["depthwise"])["macs"] == 16 * 64 * 9
    assert features_of(BLOCKS["grouped"])["kind"] == "groupedconv"
    assert features_of(BLOCKS["gemm"])["macs"] == 640
    assert features_of(BLOCKS["gemm"])["out_channels"] == 10
    assert features_of(BLOCKS["conv, batch norm, add, relu"])["kind"] == "conv+add+relu"
    assert features_of(BLOCKS["concat"])["out_channels"] == 32


def test_the_shape_class_forgets_channels_alone() -> None:
    assert features_of(conv(into=13, out=21))["shape_class"] == features_of(conv())["shape_class"]
    for other in (conv(size=4), conv(k=1), conv(stride=2), conv(producer="input"), conv(relu=False)):
        assert features_of(other)["shape_class"] != features_of(conv())["shape_class"]


def test_wrong_ops_name_the_field() -> None:
    x = TensorSpec((1, 2))
    with pytest.raises(InvalidInput, match="nodes: must have at least one node"):
        Op((), (x,), (), ("input",), 17)
    with pytest.raises(InvalidInput, match="producers"):
        Op((OpNode("Relu", ("x0",), ("y0",)),), (x,), (), (), 17)
    with pytest.raises(InvalidInput, match=r"producers.*'conv'"):
        Op((OpNode("Relu", ("x0",), ("y0",)),), (x,), (), ("conv",), 17)
    with pytest.raises(InvalidInput, match=r"nothing defines.*'x1'"):
        Op((OpNode("Add", ("x0", "x1"), ("y0",)),), (x,), (), ("input",), 17)
    with pytest.raises(InvalidInput, match=r"nothing defines.*'b'"):
        Op.of([OpNode("Add", ("a", "b"), ("y",))], {"a": (x, "input")}, {}, ["y"], 17)
    with pytest.raises(InvalidInput, match="y0"):
        Op((OpNode("Relu", ("x0",), ("t0",)),), (x,), (), ("input",), 17)
    with pytest.raises(InvalidInput, match=f"must have at most {MAX_VALUE_ELEMENTS}"):
        Constant(TensorSpec((MAX_VALUE_ELEMENTS + 1,)), (0.0,) * (MAX_VALUE_ELEMENTS + 1))
    with pytest.raises(InvalidInput, match="shape"):
        TensorSpec((-1, 3))


@pytest.mark.parametrize("data", [{}, {"nodes": 3}, {"nodes": [[1]], "inputs": []}])
def test_wrong_json_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="not the JSON form of an op"):
        Op.from_json(data)
