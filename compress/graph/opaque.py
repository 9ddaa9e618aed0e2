"""Opaque nodes: nodes without a row run in onnxruntime, one at a time."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from compress.graph.onnxruntime import session
from compress.network import Network, Node, node_proto
from compress.ops.row import TorchOp


def by_onnxruntime(node: Node, network: Network) -> TorchOp:
    """Run one node in onnxruntime, without a gradient. Its constant inputs are baked in."""
    runner = session(_alone(node, network).SerializeToString())
    named = [name for name in node.outputs if name]

    def run(*tensors: Tensor | None) -> tuple[Tensor, ...]:
        given = {
            name: tensor.detach().cpu().numpy()
            for name, tensor in zip(node.inputs, tensors, strict=False)
            if tensor is not None
        }
        made = dict(zip(named, runner.run(named, given), strict=True))
        # One tensor per output, as rows return them; an omitted output gets an empty tensor.
        return tuple(torch.from_numpy(np.asarray(made.get(name, ()))) for name in node.outputs)

    return run


def _alone(node: Node, network: Network) -> onnx.ModelProto:
    """Return a model of this node alone. It states no shapes, because shapes may depend on the batch in any way."""
    read = dict.fromkeys(name for name in node.inputs if name)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(network.types[name].dtype)), None)
        for name in read
        if name not in network.constants
    ]
    constants = [
        numpy_helper.from_array(np.asarray(network.constants[name], order="C"), name)
        for name in read
        if name in network.constants
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.outputs if name]
    graph = helper.make_graph([node_proto(node)], "node", inputs, outputs, constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in sorted(network.opset.items())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=network.ir_version)
