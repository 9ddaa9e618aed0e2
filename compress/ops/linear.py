"""Linear layers: Gemm, and MatMul with a constant weight."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops.row import Axes, Flow, Link, Row, TorchOp, same


def _build_gemm(node: Node, network: Network) -> TorchOp:
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    trans_a, trans_b = node.get("transA", 0), node.get("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = a.T if trans_a else a
        b = b if trans_b else b.T
        if alpha == 1.0 and beta == 1.0 and (c is None or c.ndim == 1):
            return torch.nn.functional.linear(a, b, c)
        product = alpha * (a @ b.T)
        return product if c is None else product + beta * c

    return run


def _flow_gemm(node: Node, network: Network, axes: Axes) -> Flow:
    x, weight, bias, y = node.input(0), node.input(1), node.input(2), node.outputs[0]
    if weight not in network.constants or node.get("transA", 0):
        raise Unsupported("Gemm with a computed weight or a transposed input")
    axis_out, axis_in = (0, 1) if node.get("transB", 0) else (1, 0)
    shape = network.shape(weight)
    links = [
        same((x, 1), (weight, axis_in), shape[axis_in]),
        same((weight, axis_out), (y, 1), shape[axis_out]),
    ]
    links += _bias_links(bias, y, shape[axis_out], network)
    return Flow({y: 1}, tuple(links), filters=((weight, axis_out),), readers=(((weight, axis_in), x),))


def _bias_links(bias: str, y: str, width: int, network: Network) -> list[Link]:
    if not bias:
        return []
    if bias not in network.constants:
        raise Unsupported("Gemm with a computed bias")
    shape = network.shape(bias)
    return [same((bias, len(shape) - 1), (y, 1), width)] if shape and shape[-1] == width else []


def _macs_gemm(node: Node, network: Network) -> int:
    return prod(network.shape(node.outputs[0])) * network.shape(node.input(0))[-2 if node.get("transA", 0) else -1]


def _build_matmul(node: Node, network: Network) -> TorchOp:
    return torch.matmul


def _flow_matmul(node: Node, network: Network, axes: Axes) -> Flow:
    x, weight, y = node.input(0), node.input(1), node.outputs[0]
    if weight not in network.constants or len(network.shape(weight)) != 2:
        raise Unsupported("MatMul without a constant matrix on the right")
    last_in, last_out = len(network.shape(x)) - 1, len(network.shape(y)) - 1
    width_in, width_out = network.shape(weight)
    links = (same((x, last_in), (weight, 0), width_in), same((weight, 1), (y, last_out), width_out))
    return Flow({y: last_out}, links, filters=((weight, 1),), readers=(((weight, 0), x),))


def _macs_matmul(node: Node, network: Network) -> int:
    return prod(network.shape(node.outputs[0])) * network.shape(node.input(0))[-1]


ROWS = (
    Row(("Gemm",), _build_gemm, _flow_gemm, macs=_macs_gemm, trained=(1, 2)),
    Row(("MatMul",), _build_matmul, _flow_matmul, macs=_macs_matmul, trained=(0, 1)),
)
