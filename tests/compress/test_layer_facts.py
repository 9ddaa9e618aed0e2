"""Facts about a layer: what a strategy is told of each knob of widths."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.counting.layer_facts import LayerFacts
from compress.importing.normalise import load_network
from compress.methods import filter_prune
from compress.network import Network
from compress.testing import example_network
from search.space import Choice


def strided() -> Network:
    """A convolution of 3 to 8 channels over every second position of 3 x 12 x 8, and a linear layer of 8 to 5."""
    constants = {
        "conv.weight": np.ones((8, 3, 5, 5), np.float32),
        "fc.weight": np.ones((5, 8), np.float32),
        "fc.bias": np.zeros(5, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight"], ["a"], "conv", pads=[2] * 4, strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"], "pool"),
        helper.make_node("Flatten", ["b"], ["c"], "flat"),
        helper.make_node("Gemm", ["c", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "strided",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 12, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return load_network(model.SerializeToString())


def test_a_convolution_and_a_linear_layer() -> None:
    network = strided()
    facts = LayerFacts(network)
    conv, linear = (facts.of(network.node(name)) for name in ("conv", "fc"))
    macs = 8 * 3 * 25 * 6 * 4
    share = macs / (macs + 40)
    assert conv == pytest.approx(
        {
            "index": 0,
            "channels": 8,
            "input_channels": 3,
            "kernel": 5,
            "stride": 2,
            "height": 6,
            "width": 4,
            "share_of_macs": share,
        }
    )
    assert linear == pytest.approx(
        {
            "index": 1,
            "channels": 5,
            "input_channels": 8,
            "kernel": 1,
            "stride": 1,
            "height": 1,
            "width": 1,
            "share_of_macs": 1 - share,
        }
    )


def test_a_knob_of_widths_tells_the_facts_of_its_block_and_its_layers() -> None:
    network = example_network(width=6)
    knobs = filter_prune.METHOD.make(filter_prune.Settings()).knobs(network, {})
    by_name = {knob.name: knob for knob in knobs}
    stream, inner = by_name["stem"], by_name["a1"]
    assert isinstance(stream, Choice)
    assert isinstance(inner, Choice)
    assert stream.layers == ("stem", "a2", "b2")
    assert inner.layers == ("a1",)
    assert (stream.features["layers"], stream.features["readers"]) == (3, 3)
    assert {name: inner.features[name] for name in ("index", "channels", "input_channels", "kernel", "stride")} == {
        "index": 1,
        "channels": 6,
        "input_channels": 6,
        "kernel": 3,
        "stride": 1,
    }
    assert (inner.features["height"], inner.features["width"]) == (8, 8)
    assert 0 < inner.features["share_of_macs"] < stream.features["share_of_macs"] <= 1
