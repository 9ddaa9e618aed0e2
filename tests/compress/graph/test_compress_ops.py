"""The rows of the op tables against onnx's own backend node cases."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from compress.graph.module import TorchNetwork
from compress.importing.normalise import load_network
from compress.network import Network, TensorType, frozen, read_node
from compress.ops import covered


@cache
def _cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = load_model_tests(kind="node")
    names = set(covered())
    cases = {}
    for case in found:
        model = onnx.load(f"{case.model_dir}/model.onnx") if case.model is None else case.model
        nodes = model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in names and not nodes[0].domain:
            cases[case.name] = (case, model)
    return cases


def _data(case: Any, model: onnx.ModelProto) -> tuple[list[Any], list[Any]]:
    if case.data_sets:
        return case.data_sets[0]
    from glob import glob

    def read(kind: str) -> list[Any]:
        files = sorted(glob(f"{case.model_dir}/test_data_set_0/{kind}_*.pb"))
        tensors = []
        for file in files:
            tensor = onnx.TensorProto()
            with open(file, "rb") as handle:
                tensor.ParseFromString(handle.read())
            tensors.append(onnx.numpy_helper.to_array(tensor))
        return tensors

    return read("input"), read("output")


def _network(model: onnx.ModelProto, inputs: list[Any], outputs: list[Any]) -> Network:
    """The case as a Network: its first input is data, the others are constants, as in a trained network."""
    graph = model.graph
    constants = {value.name: np.asarray(given) for value, given in zip(graph.input[1:], inputs[1:], strict=True)}
    types = {graph.input[0].name: TensorType(inputs[0].shape, str(inputs[0].dtype), 0)}
    types |= {
        value.name: TensorType(np.shape(given), str(np.asarray(given).dtype), 0)
        for value, given in zip(graph.output, outputs, strict=True)
    }
    node = read_node(graph.node[0], "node")
    return Network(
        (node,),
        frozen({name: np.array(value) for name, value in constants.items()}),
        {graph.input[0].name: types[graph.input[0].name]},
        {value.name: types[value.name] for value in graph.output},
        {item.domain: item.version for item in model.opset_import},
        model.ir_version,
        types,
    )


def _usable(inputs: list[Any], outputs: list[Any]) -> bool:
    floats = all(isinstance(value, np.ndarray | np.generic) for value in (*inputs, *outputs))
    return bool(inputs) and floats and np.asarray(inputs[0]).dtype == np.float32 and np.asarray(inputs[0]).ndim > 0


def test_rows_agree_with_the_backend_cases_of_onnx() -> None:
    checked: dict[str, int] = {}
    opaque: dict[str, int] = {}
    for name, (case, model) in _cases().items():
        inputs, outputs = _data(case, model)
        if not _usable(inputs, outputs) or model.graph.node[0].op_type == "Cast":
            continue
        try:
            network = _network(model, inputs, outputs)
            module = TorchNetwork(network).eval()
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}") from error
        op_type = model.graph.node[0].op_type
        if module.opaque:
            opaque[op_type] = opaque.get(op_type, 0) + 1
            continue
        with torch.no_grad():
            seen = module.run(torch.from_numpy(np.array(inputs[0])), [v.name for v in model.graph.output])
        for value, expected in zip(model.graph.output, outputs, strict=True):
            actual = seen[value.name].numpy()
            assert actual.shape == expected.shape, name
            np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5, err_msg=name)
        checked[op_type] = checked.get(op_type, 0) + 1
    missing = set(covered()) - set(checked) - {"Cast"}
    assert not missing, f"no case of these ops ran: {sorted(missing)} (opaque: {opaque})"
    assert sum(checked.values()) > 120, checked


@pytest.mark.parametrize("to", ["FLOAT16", "DOUBLE", "INT64"])
def test_cast(to: str) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=getattr(onnx.TensorProto, to))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 3])],
        [helper.make_tensor_value_info("y", getattr(onnx.TensorProto, to), ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    module = TorchNetwork(load_network(model.SerializeToString()))
    x = np.array([[1.6, -2.0, 3.25]], np.float32)
    expected = x.astype(helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, to)))
    np.testing.assert_array_equal(module(torch.from_numpy(x)).numpy(), expected)
