"""Batch norms in training mode, and samples that depend on the others in their batch."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from onnx import helper
from onnx_graphs import Graph

from compress.errors import InvalidInput
from compress.importing.batch_statistics import check_independent
from compress.network import Network


def mixed(op: str, **attributes: Any) -> Network:
    """A convolution and a head, with an op across axis 0 or 1 between them."""
    g = Graph(3, 8, 8)
    x = g.conv("image", "a", 3, 4)
    if op == "ReduceMean":
        x = g.op("Sub", x, g.op("ReduceMean", x, g.ints("axes", *attributes["axes"]), keepdims=1))
    else:
        x = g.norm(x, "norm", 4)
        g.nodes[-1].attribute.append(helper.make_attribute("training_mode", 1))
        g.nodes[-1].output.extend(["new_mean", "new_variance"])
        if attributes["read"]:
            x = g.op("Add", x, g.op("Reshape", "new_mean", g.ints("shape", 1, 4, 1, 1)))
    return g.network(g.head(g.op("Relu", x), 4))


def test_a_norm_in_training_mode_is_put_into_inference_mode_and_it_is_said() -> None:
    network = mixed("BatchNormalization", read=False)
    norm = next(node for node in network.nodes if node.op_type == "BatchNormalization")
    assert "training_mode" not in norm.attributes
    assert len(norm.outputs) == 1
    assert any("1 batch norms" in warning for warning in network.warnings)
    check_independent(network, Graph(3, 8, 8).images(3))


@pytest.mark.parametrize(
    ("network", "op"),
    [
        (partial(mixed, "BatchNormalization", read=True), "BatchNormalization"),
        (partial(mixed, "ReduceMean", axes=[0]), "Sub"),
    ],
)
def test_samples_that_depend_on_each_other_are_refused_naming_the_node(network: Any, op: str) -> None:
    with pytest.raises(InvalidInput, match=rf"other samples in its batch, first at node .*\({op}\)"):
        check_independent(network(), Graph(3, 8, 8).images(3))


def test_independent_samples_pass() -> None:
    check_independent(mixed("ReduceMean", axes=[1]), Graph(3, 8, 8).images(3))
