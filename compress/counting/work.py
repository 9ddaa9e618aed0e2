"""Work: the multiply-accumulates of a node and the weights of a network, even for ops that have no row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from compress.network import Network, Node
from compress.ops import find_row


def _none(node: Node, network: Network) -> int:
    return 0


def _transposed(node: Node, network: Network) -> int:
    """Return the multiply-accumulates: each position of the input is multiplied by every weight of its group."""
    return prod(network.shape(node.input(1))) * prod(network.shape(node.input(0))[2:])


def _recurrent(node: Node, network: Network) -> int:
    """Return the multiply-accumulates: each step uses both weights once. The first axes are steps and samples."""
    return prod(network.shape(node.input(0))[:2]) * sum(prod(network.shape(name)) for name in node.inputs[1:3])


@dataclass(frozen=True)
class Work:
    """Facts about an op: the input positions of its weights, and its multiply-accumulates."""

    weights: tuple[int, ...] = ()
    macs: Callable[[Node, Network], int] = _none


_WITHOUT_ROW: Mapping[str, Work] = {
    "ConvTranspose": Work((1, 2), _transposed),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), Work((1, 2, 3), _recurrent)),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization", "LayerNormalization"), Work((1, 2))),
}
_NOTHING = Work()


def macs(node: Node, network: Network) -> int:
    """Return the multiply-accumulates of a node at batch 1."""
    row = find_row(node)
    return _work(node).macs(node, network) if row is None else row.macs(node, network)


def weights(network: Network) -> tuple[str, ...]:
    """Return the names of the constants that are a network's parameters, trainable or not, each once, without scalars.

    A weight stored in fewer bits counts as a parameter, like the float weight that its DequantizeLinear returns.
    """
    names: dict[str, None] = {}
    for node in network.nodes:
        row = find_row(node)
        for position in _work(node).weights if row is None else row.trained:
            name = _stored(node.input(position), network)
            if name in network.constants and network.constants[name].ndim and network.constants[name].dtype != "int64":
                names[name] = None
    return tuple(names)


def _work(node: Node) -> Work:
    return _WITHOUT_ROW.get(node.op_type, _NOTHING) if node.domain in ("", "ai.onnx") else _NOTHING


def _stored(name: str, network: Network) -> str:
    """Return the stored constant of a weight that is widened or dequantised when the file is loaded."""
    made = network.producer(name)
    return made.inputs[0] if made is not None and made.op_type in ("Cast", "DequantizeLinear") else name
