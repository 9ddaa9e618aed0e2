"""Effective weights: the weights of a layer after the batch norm behind it is folded in.

Thresholds and projections work on effective weights, so that the folded and the unfolded file of a network are treated
alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from compress.graph.fold import norms, output_axis
from compress.network import Array, Network
from compress.ops import find_row

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
Weights: TypeAlias = Mapping[str, Array]
"""Constant name -> value, for every trained constant of a network. Weights of layers are in their effective form."""


@dataclass(frozen=True)
class Factor:
    """The factor that folding a norm applies to a layer's weight, by constant names; `shape` fits the weight's axes."""

    gamma: str
    variance: str
    epsilon: float
    shape: tuple[int, ...]

    def of(self, held: Callable[[str], Array]) -> Array:
        """Compute the factor; `held` returns a constant's array by name."""
        return (held(self.gamma) / (held(self.variance) + self.epsilon) ** 0.5).reshape(self.shape)


def layer_weights(network: Network) -> tuple[str, ...]:
    """Return the names of the float32 weights of Conv, Gemm and MatMul, in order of execution, each once."""
    names = (name for node in network.nodes if node.op_type in LAYERS for name in node.inputs[:2])
    found = (name for name in names if name in network.constants)
    return tuple(
        dict.fromkeys(
            name for name in found if network.constants[name].dtype == np.float32 and network.constants[name].ndim > 1
        )
    )


def trained(network: Network) -> tuple[str, ...]:
    """Return the names of the constants that training changes: weights, biases, affines of norms, but no scalars."""
    names: dict[str, None] = {}
    for node in network.nodes:
        row = find_row(node)
        for position in row.trained if row else ():
            name = node.input(position)
            if name in network.constants and network.constants[name].ndim:
                names[name] = None
    return tuple(names)


def factors(network: Network) -> dict[str, Factor]:
    """Return the factor of each layer weight that a norm follows. A tied weight has no factor: its norms may differ."""
    found = {}
    for norm in norms(network):
        weight = norm.layer.inputs[1]
        if network.sole_consumer(weight) is norm.layer:
            shape = [1] * network.constants[weight].ndim
            shape[output_axis(norm.layer)] = -1
            _, gamma, _, _, variance = norm.node.inputs[:5]
            found[weight] = Factor(gamma, variance, norm.node.get("epsilon", 1e-5), tuple(shape))
    return found


def effective(network: Network, names: tuple[str, ...] | None = None) -> dict[str, Array]:
    """Return these layer weights, or all of them, with norms folded in, as float64 in their stored shapes."""
    known = factors(network)

    def double(name: str) -> Array:
        return network.constants[name].astype(np.float64)

    return {
        name: double(name) * known[name].of(double) if name in known else double(name)
        for name in (layer_weights(network) if names is None else names)
    }


def effective_weights(network: Network) -> dict[str, Array]:
    """Return every trained constant, with the weights of layers in their effective form, for operators to project."""
    return {**{name: network.constants[name] for name in trained(network)}, **effective(network)}


def stored(network: Network, weights: Weights) -> dict[str, Array]:
    """Return constants for the network, as the inverse of `effective`. A weight whose factor is zero becomes zero."""
    known = factors(network)
    made = {}
    for name, value in weights.items():
        raw = value
        if name in known:
            factor = np.broadcast_to(known[name].of(lambda key: network.constants[key].astype(np.float64)), value.shape)
            raw = np.divide(value, factor, out=np.zeros(value.shape), where=factor != 0)
        made[name] = raw.astype(network.constants[name].dtype)
    return made
