"""The wiring of a network: equal for other weights, another for other nodes, shapes and small constants."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from hw_profiles.testing import small_network
from hw_profiles.wiring import wiring


def changed(factor: float = 1.0, name: str = "node of r0", size: int = 8, axis: int = 1) -> bytes:
    """The small network with other weights, another name of a node, another image or another constant."""
    model = onnx.load_model_from_string(small_network())
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(factor * numpy_helper.to_array(tensor), tensor.name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([axis], np.int64), "axis"))
    model.graph.node[1].name = name
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = size
    return bytes(model.SerializeToString())


def test_other_weights_do_not_change_the_wiring() -> None:
    assert wiring(changed()) == wiring(changed(factor=2.0))


def test_names_shapes_and_small_constants_do() -> None:
    found = {wiring(changed()), wiring(changed(name="other")), wiring(changed(size=9)), wiring(changed(axis=2))}
    assert len(found) == 4
