"""Loading, normalising, verifying and saving a network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_graphs import Graph

from compress.errors import Disagreement, InvalidInput
from compress.graph.edit import replaced
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import relative_difference
from compress.importing.normalise import load_network
from compress.importing.verify import verify
from compress.network import Network
from compress.ops.row import Row


def classifier(**shape: int) -> Graph:
    return Graph(3, 8, 8, **shape)


def small() -> tuple[Graph, Network]:
    g = classifier()
    return g, g.network(g.head(g.op("Relu", g.conv("image", "a", 3, 6)), 6))


def test_load_save_load_gives_the_same_network() -> None:
    _, network = small()
    again = load_network(network.save())
    assert again.save() == network.save()
    assert again.digest == network.digest


def test_inputs_outputs_and_untouched_tensors_keep_their_names() -> None:
    g, network = small()
    assert network.input_name == "image"
    assert set(network.outputs) == {g.nodes[-1].output[0]}
    assert {node.outputs[0] for node in network.nodes} == {node.output[0] for node in g.nodes}


def test_types_know_the_batch_axis() -> None:
    _, network = small()
    conv = network.nodes[0].outputs[0]
    assert network.types[conv].shape == (1, 6, 8, 8)
    assert network.types[conv].batch_axis == 0


def test_a_batch_of_one_in_a_reshape_becomes_symbolic() -> None:
    g = classifier()
    x = g.op("GlobalAveragePool", g.conv("image", "a", 3, 6))
    network = g.network(g.gemm(g.op("Reshape", x, g.ints("shape", 1, 6)), "h", 6, 5), batch=1)
    assert any("batch of 1" in warning for warning in network.warnings)
    assert run_onnxruntime(network, g.images(3))[network.output_name].shape == (3, 5)


def test_a_shape_chain_is_folded_and_follows_the_batch() -> None:
    g = classifier()
    x = g.op("GlobalAveragePool", g.conv("image", "a", 3, 6))
    batch = g.op("Gather", g.op("Shape", x), g.constant("zero", np.int64(0)), axis=0)
    target = g.op("Concat", g.op("Unsqueeze", batch, g.ints("ax", 0)), g.ints("rest", -1), axis=0)
    network = g.network(g.gemm(g.op("Reshape", x, target), "h", 6, 5))
    assert [node.op_type for node in network.nodes] == ["Conv", "GlobalAveragePool", "Reshape", "Gemm"]
    verify(network, g.images(3))


def test_a_constant_shared_by_different_roles_gets_a_copy_for_each() -> None:
    g = classifier()
    bias = g.random("bias", 6)
    x = g.op("Conv", "image", g.random("w", 6, 3, 3, 3), bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    y = g.op("Conv", x, g.random("v", 6, 6, 3, 3), bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    network = g.network(g.head(y, 6))
    assert network.nodes[0].input(2) != network.nodes[1].input(2)
    verify(network, g.images(3))


def test_nodes_of_one_name_are_renamed_with_a_warning() -> None:
    g = classifier()
    proto = g.proto(g.head(g.op("Relu", g.conv("image", "a", 3, 6)), 6))
    for node in proto.graph.node:
        node.name = "same"
    network = load_network(proto.SerializeToString())
    assert len({node.name for node in network.nodes}) == len(network.nodes) > 2
    assert network.nodes[0].name == "same"
    (warning,) = network.warnings
    assert (
        warning == f"{len(network.nodes) - 1} nodes had the same name as another node and were renamed, "
        "e.g. from 'same' to 'same_1'"
    )
    assert not load_network(network.save()).warnings
    verify(network, g.images(3))


def test_metadata_is_stripped() -> None:
    g = classifier()
    proto = g.proto(g.head(g.conv("image", "a", 3, 6), 6))
    entry = proto.graph.node[0].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.stack_trace", "/home/somebody/secret/model.py"
    proto.doc_string = "made by somebody"
    saved = load_network(proto.SerializeToString()).save()
    assert b"somebody" not in saved


def test_functions_are_inlined() -> None:
    g = classifier()
    proto = g.proto(g.head(g.op("Twice", g.conv("image", "a", 3, 6), domain="mine"), 6))
    body = [helper.make_node("Add", ["x", "x"], ["y"])]
    opset = helper.make_opsetid("", 18)
    proto.functions.append(helper.make_function("mine", "Twice", ["x"], ["y"], body, [opset]))
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    network = load_network(proto.SerializeToString())
    assert "Add" in [node.op_type for node in network.nodes]


def test_an_old_opset_is_converted() -> None:
    g = Graph(3, 8, 8, opset=9)
    network = g.network(g.head(g.op("Relu", g.conv("image", "a", 3, 6)), 6))
    assert network.opset[""] >= 13
    verify(network, g.images(3))


def test_quantised_weights_are_not_folded_into_floats() -> None:
    g = classifier()
    weight = g.constant("q", g.rng.integers(-100, 100, (6, 3, 3, 3)).astype(np.int8))
    scale, zero = g.constant("s", np.float32(0.01)), g.constant("z", np.int8(0))
    x = g.op("Conv", "image", g.op("DequantizeLinear", weight, scale, zero), kernel_shape=[3, 3])
    network = g.network(g.head(x, 6))
    assert "DequantizeLinear" in [node.op_type for node in network.nodes]
    verify(network, g.images(3))


@pytest.mark.parametrize("damage", ["truncated", "noise", "empty", "pickle"])
def test_a_corrupt_file_is_refused_in_one_sentence(damage: str) -> None:
    _, network = small()
    data = network.save()
    broken = {
        "truncated": data[: len(data) // 2],
        "noise": bytes(range(256)) * 40,
        "empty": b"",
        "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins",
    }[damage]
    with pytest.raises(InvalidInput) as error:
        load_network(broken)
    assert error.value.field == "file"


def test_numbers_of_no_known_type_are_refused() -> None:
    g = classifier()
    proto = g.proto(g.head(g.conv("image", "a", 3, 6), 6))
    proto.graph.initializer[0].data_type = 99
    with pytest.raises(InvalidInput, match="are of type 99, which ONNX does not have") as error:
        load_network(proto.SerializeToString())
    assert (error.value.field, error.value.value) == ("file", 99)


def test_external_data_is_refused() -> None:
    g = classifier()
    proto = g.proto(g.head(g.conv("image", "a", 3, 6), 6))
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    with pytest.raises(InvalidInput, match="external data"):
        load_network(proto.SerializeToString())


def test_two_inputs_are_refused_by_name() -> None:
    g = classifier()
    proto = g.proto(g.head(g.op("Add", g.conv("image", "a", 3, 6), "other"), 6))
    proto.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["N", 6, 8, 8]))
    with pytest.raises(InvalidInput, match="other") as error:
        load_network(proto.SerializeToString())
    assert error.value.field == "inputs"


def test_a_free_image_size_is_refused_with_what_to_do() -> None:
    g = classifier()
    proto = g.proto(g.head(g.conv("image", "a", 3, 6), 6))
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(InvalidInput, match="fixed height") as error:
        load_network(proto.SerializeToString())
    assert "height" in error.value.value  # type: ignore[operator]  # a list of sizes and names


def test_a_size_of_zero_is_shown_as_such() -> None:
    g = classifier()
    proto = g.proto(g.head(g.conv("image", "a", 3, 6), 6))
    sizes = proto.graph.input[0].type.tensor_type.shape.dim
    sizes[2].dim_value = 0
    sizes[3].Clear()
    with pytest.raises(InvalidInput, match="fixed sizes above 0") as error:
        load_network(proto.SerializeToString())
    assert str(error.value.value).endswith(", 3, 0, '?']")


def opset_of(proto: onnx.ModelProto) -> int:
    return next(item.version for item in proto.opset_import if not item.domain)


def test_what_onnx_refuses_is_told_with_the_opset_and_no_value() -> None:
    g = classifier()
    proto = g.proto(g.head(g.conv("image", "a", 3, 6), 6))
    proto.graph.node[0].op_type = "Cnov"
    with pytest.raises(
        InvalidInput, match=rf"onnx refuses the file \(its opset is {opset_of(proto)}\): .*Cnov"
    ) as error:
        load_network(proto.SerializeToString())
    assert error.value.value is None


def test_a_batch_that_cannot_be_made_symbolic_is_refused() -> None:
    g = classifier()
    x = g.op("GlobalAveragePool", g.conv("image", "a", 3, 6))
    logits = g.op("Reshape", g.gemm(g.op("Flatten", x), "h", 6, 5), g.ints("fixed", 5), allowzero=1)
    with pytest.raises(InvalidInput):
        g.network(logits)


def with_noise(g: Graph, kind: str) -> str:
    """A network of g with one node that draws at random; its name is in the graph's list of nodes."""
    x = g.conv("image", "a", 3, 6)
    if kind == "Dropout":
        return g.head(g.op("Dropout", x, g.constant("half", np.float32(0.5)), g.constant("on", np.bool_(True))), 6)
    if kind == "Multinomial":
        return str(g.op("Cast", g.op("Multinomial", g.head(x, 6), sample_size=5), to=TensorProto.FLOAT))
    if kind == "Bernoulli":
        return g.head(g.op("Bernoulli", g.op("Sigmoid", x)), 6)
    if kind.endswith("Like"):  # of a constant: one sample must not become a constant itself
        return g.head(g.op("Add", x, g.op(kind, g.random("frame", 1, 6, 8, 8))), 6)
    return g.head(g.op("Add", x, g.op(kind, shape=[1, 6, 8, 8])), 6)


@pytest.mark.parametrize(
    "kind",
    ["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"],
)
def test_a_random_node_is_refused_by_name(kind: str) -> None:
    g = classifier()
    logits = with_noise(g, kind)
    node = next(node for node in g.nodes if node.op_type == kind)
    with pytest.raises(InvalidInput, match=rf"{node.name}' \({kind}\) is random.*eval mode") as error:
        g.network(logits)
    assert (error.value.field, error.value.value) == ("file", node.name)
    assert not isinstance(error.value, Disagreement)


def test_a_dropout_in_eval_mode_and_a_random_node_that_nobody_reads_are_fine() -> None:
    g = classifier()
    x = g.conv("image", "a", 3, 6)
    g.op("RandomNormalLike", x)
    x = g.op("Dropout", x, g.constant("half", np.float32(0.5)), g.constant("off", np.bool_(False)))
    network = g.network(g.head(g.op("Dropout", x), 6))
    assert "RandomNormalLike" not in {node.op_type for node in network.nodes}
    assert verify(network, g.images(3)) < 1e-4


def test_disagreement_names_the_first_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that reads the file wrongly is found, and the first node that differs is named."""
    import compress.graph.module

    g, network = small()
    honest = compress.graph.module.find_row

    def wrong(node: object) -> Row | None:
        row = honest(node)  # type: ignore[arg-type]  # passes through
        if row is None or "Relu" not in row.op_types:
            return row
        return Row(row.op_types, lambda node, network: lambda x: x.abs(), row.flow)

    monkeypatch.setattr(compress.graph.module, "find_row", wrong)
    with pytest.raises(Disagreement) as error:
        verify(network, g.images(3))
    assert error.value.node == next(node.name for node in network.nodes if node.op_type == "Relu")


def test_replace_is_verified() -> None:
    _, network = small()
    relu = next(node for node in network.nodes if node.op_type == "Relu")
    from compress.network import Node

    same = replaced(network, [relu.name], [Node("Clip", "clip", (relu.inputs[0], "low"), relu.outputs)],
                           {"low": np.float32(0).reshape(())})  # fmt: skip
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    a, b = (run_onnxruntime(n, images)[network.output_name] for n in (network, same))
    assert relative_difference(a, b) == 0.0
    with pytest.raises(InvalidInput):
        replaced(network, [relu.name], [Node("Flatten", "flat", relu.inputs, relu.outputs)], {})


def test_constants_cannot_change_shape_or_be_written() -> None:
    _, network = small()
    with pytest.raises(ValueError, match="does not replace"):
        network.with_constants({"a.weight": np.zeros((1, 3, 3, 3), np.float32)})
    with pytest.raises(ValueError, match="read-only"):
        network.constants["a.weight"][0] = 1.0


def test_a_saved_file_passes_the_checker() -> None:
    _, network = small()
    onnx.checker.check_model(onnx.load_from_string(network.save()), full_check=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(bad: float) -> None:
    g = classifier()
    x = g.conv("image", "a", 3, 6)
    g.weights["a.weight"][0, 0, 0, 0] = bad
    with pytest.raises(InvalidInput, match=r"1 of the 162 values of 'a\.weight'"):
        g.network(g.head(x, 6))
