"""int8: what is quantised, how, and what is left of the float graph once onnxruntime has fused it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from compress_graphs import Graph, images, mobile, residual

from compress.data.dataset import load_dataset
from compress.data.preprocessing import Preprocessing, preprocess
from compress.evidence import Evidence
from compress.graph.edit import edited
from compress.graph.fold import fold_norms
from compress.graph.onnxruntime import run_onnxruntime, session
from compress.importing.agreement import relative_difference
from compress.importing.normalise import load_network
from compress.network import Network
from compress.quantising.calibration import Range, calibrate
from compress.quantising.precision import choose
from compress.quantising.quantise import activation_scale, quantise, quantised_weight, weight_scale
from compress.scheme import Scheme


def int8(network: Network, **settings: object) -> Network:
    precision = choose(network)
    return quantise(network, precision, calibrate(network, precision.calibrated, images(32)), **settings)  # type: ignore[arg-type]  # test


def fused_ops(network: Network, folder: Path) -> Counter[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(network.save(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def test_residual_network_fuses_to_integer_kernels_alone(tmp_path: Path) -> None:
    ops = fused_ops(int8(residual()), tmp_path)
    assert ops["QLinearConv"] == 6
    assert ops["QLinearAdd"] == 2
    assert ops["QLinearGlobalAveragePool"] == ops["QGemm"] == 1
    assert ops["QuantizeLinear"] == 1, "only the input is converted"
    assert not {"Conv", "Relu", "Add", "Gemm", "DequantizeLinear"} & set(ops)


def test_mobile_network_keeps_its_light_ops_in_integers(tmp_path: Path) -> None:
    ops = fused_ops(int8(mobile()), tmp_path)
    assert ops["QLinearConv"] == 6
    assert ops["QLinearMul"] == ops["QLinearSigmoid"] == ops["QLinearLeakyRelu"] == ops["QLinearConcat"] == 1
    assert ops["QuantizeLinear"] == 1
    assert not {"Conv", "Clip", "Concat", "Mul"} & set(ops)


@pytest.mark.parametrize("build", [residual, mobile])
def test_outputs_stay_close_and_names_stay(build: object) -> None:
    network = build()  # type: ignore[operator]  # one of two factories
    result = int8(network)
    assert list(result.outputs) == list(network.outputs)
    assert result.inputs == network.inputs
    batch = images(16, seed=5)
    difference = relative_difference(
        run_onnxruntime(result, batch)["logits"], run_onnxruntime(network, batch)["logits"]
    )
    assert difference < 0.05


def test_a_saved_int8_file_loads_to_the_same_network() -> None:
    result = int8(residual())
    assert load_network(result.save()).digest == result.digest


def test_int8_activations_give_the_same_levels_shifted() -> None:
    unsigned, signed = (activation_scale(Range(-1.0, 3.0), kind) for kind in ("uint8", "int8"))
    assert unsigned.scale == signed.scale
    assert int(unsigned.zero_point) - 128 == int(signed.zero_point)
    assert unsigned.zero_point.dtype == np.uint8
    assert signed.zero_point.dtype == np.int8
    batch = images(8, seed=5)
    outputs = [run_onnxruntime(int8(residual(), activations=kind), batch)["logits"] for kind in ("uint8", "int8")]
    np.testing.assert_allclose(*outputs, atol=0.02 * float(np.abs(outputs[0]).max()))


def test_weights_are_symmetric_per_channel_within_half_a_step() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    weight[2] = 0.0
    scale = weight_scale(weight, 0)
    levels = quantised_weight(weight, scale)
    restored = levels * scale.scale.reshape(-1, 1, 1, 1)
    assert (np.abs(restored - weight) <= scale.scale.reshape(-1, 1, 1, 1) * 0.5001).all()
    assert levels[[0, 1, 3]].reshape(3, -1).__abs__().max(axis=1).tolist() == [127, 127, 127]
    assert not levels[2].any()
    assert np.isfinite(scale.scale).all()


def test_fewer_bits_use_fewer_levels() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    assert np.abs(quantised_weight(weight, weight_scale(weight, 0, bits=7))).max() == 63


def test_a_huge_bias_beside_a_dead_weight_does_not_overflow() -> None:
    graph = Graph((3, 8, 8))
    x = graph.conv("image", "stem", (3, 4))
    graph.constants["stem.weight"][1] = 0.0
    graph.constants["stem.bias"][1] = 50.0
    graph.gemm(graph.pool_flat(x, "flat"), "logits", (4, 2))
    network = graph.network()
    batch = images(8, seed=5)
    seen, expected = (run_onnxruntime(n, batch)["logits"] for n in (int8(network), network))
    assert relative_difference(seen, expected) < 0.05


def test_a_layer_kept_in_float_stays_there(tmp_path: Path) -> None:
    network = residual()
    precision = choose(network, keep_float=("stem_node",))
    assert "stem_node" in precision.floats
    ops = fused_ops(quantise(network, precision, calibrate(network, precision.calibrated, images(8))), tmp_path)
    assert (ops["Conv"] + ops["FusedConv"], ops["QLinearConv"]) == (1, 5)


def test_what_int8_does_not_cover_stays_in_float_with_a_reason() -> None:
    graph = Graph((6,))
    graph.constant("weight", np.ones((6, 4), np.float32))
    graph.op("Gemm", ["image", "weight"], "logits", alpha=0.5)
    network = graph.network()
    precision = choose(network)
    assert not precision.nodes
    assert "alpha" in precision.floats["logits_node"]
    assert quantise(network, precision, {}) is network


def test_an_activation_that_is_also_an_output_is_still_one() -> None:
    network = residual()
    both = edited(network, network.nodes, network.constants)
    both = Network(
        both.nodes,
        both.constants,
        both.inputs,
        {**both.outputs, "a_relu": both.types["a_relu"]},
        both.opset,
        both.ir_version,
        both.types,
    )
    result = int8(both)
    batch = images(4, seed=5)
    # In the file's own arithmetic: integer kernels of processors without VNNI saturate sums of two products.
    (seen,) = session(result.save(), optimise=False).run(["a_relu"], {result.input_name: batch})
    expected = run_onnxruntime(both, batch)["a_relu"]
    assert relative_difference(np.asarray(seen), expected) < 0.05


def test_folding_leaves_the_function_and_no_norm() -> None:
    network = residual(norms=True)
    folded = fold_norms(network)
    assert not [node for node in folded.nodes if node.op_type == "BatchNormalization"]
    batch = images(8)
    assert relative_difference(*(run_onnxruntime(n, batch)["logits"] for n in (folded, network))) < 1e-5
    assert fold_norms(folded) is folded


def test_folding_leaves_a_norm_whose_input_others_read() -> None:
    graph = Graph((3, 8, 8))
    x = graph.conv("image", "stem", (3, 4))
    y = graph.op("Add", [graph.norm(x, "norm", 4), x], "sum")
    graph.gemm(graph.pool_flat(y, "flat"), "logits", (4, 2))
    assert fold_norms(graph.network()).digest == graph.network().digest


def test_every_reader_has_a_pair_of_its_own() -> None:
    """A residual sum and the convolution beside it read one tensor through two DequantizeLinear nodes."""
    result = int8(residual())
    pairs = [node for node in result.nodes if node.op_type == "DequantizeLinear"]
    assert all(len(result.consumers(pair.outputs[0])) <= 1 for pair in pairs)
    shared = Counter(pair.inputs[0] for pair in pairs)
    assert max(shared.values()) == 2


@pytest.mark.shared
def test_the_trained_resnet20_loses_nothing_and_runs_in_integers_alone(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    network = load_network(shared("models/resnet20-cifar10.onnx"))
    data = load_dataset(shared("cifar10-small.parquet"))
    pixels = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    operator = Scheme.of([("int8_ptq", {})]).bind({"int8_ptq": "int8"})
    result = operator.rewrite(network, Evidence(images=preprocess(data.train.images[:256], pixels)))
    assert set(fused_ops(result, tmp_path)) == {
        *("QuantizeLinear", "QLinearConv", "QLinearAdd", "QLinearAveragePool", "QGemm", "Reshape", "Transpose")
    }
    batch, labels = preprocess(data.validation.images[:1000], pixels), data.validation.labels[:1000]
    accuracies = [float((run_onnxruntime(n, batch)["logits"].argmax(1) == labels).mean()) for n in (network, result)]
    assert accuracies[1] > accuracies[0] - 0.005
