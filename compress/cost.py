"""Cost: parameters, multiply-accumulates and bytes of a network, at its own widths or at any others, vectorised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from compress.groups import Block
from compress.network import Network
from compress.ops import find_row

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """Exact counts. `parameters` are trained weights (running statistics are not), `macs` are at batch 1,
    `size_bytes` is the length of the saved file."""

    parameters: int
    macs: int
    size_bytes: int


def cost(network: Network) -> Cost:
    """Count a network as it is."""
    macs = sum(row.macs(node, network) for node in network.nodes if (row := find_row(node)) is not None)
    parameters = sum(network.constants[name].size for name in _trained(network))
    return Cost(parameters, macs, len(network.save()))


def _trained(network: Network) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for node in network.nodes:
        row = find_row(node)
        for position in row.trained if row else ():
            name = node.input(position)
            if name in network.constants and network.constants[name].ndim:
                names[name] = None
    return tuple(names)


class CostModel:
    """Counts of every cut of a network without cutting it: a constant's size is the product of its axes' widths.

    Args:
        network: the uncut network.
        blocks: the blocks whose widths vary, in the order of the columns of `widths`.
    """

    def __init__(self, network: Network, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(blocks)
        names = tuple(network.constants)
        self._shares = [_Share(network.shape(name), _axis_parts(name, blocks)) for name in names]
        trained = set(_trained(network))
        self._trained = np.array([name in trained for name in names], dtype=np.float64)
        self._bytes = np.array([network.constants[name].dtype.itemsize for name in names], dtype=np.float64)
        self._positions = np.array([_positions(network).get(name, 0.0) for name in names])
        self._overhead_bytes = len(network.save()) - sum(value.nbytes for value in network.constants.values())

    def counts(self, widths: NDArray[np.int64]) -> Mapping[str, Counts]:
        """`widths` (n, blocks) -> parameters, macs and size_bytes, each (n,).

        `size_bytes` counts the weights exactly and takes the graph's own bytes from the uncut file.
        """
        sizes = np.stack([share.sizes(widths) for share in self._shares], axis=1)
        return {
            "parameters": sizes @ self._trained,
            "macs": sizes @ self._positions,
            "size_bytes": sizes @ self._bytes + self._overhead_bytes,
        }


@dataclass(frozen=True)
class _Share:
    """The size of one constant: per axis a fixed part plus multiplicity x width for each block on it."""

    shape: tuple[int, ...]
    parts: Mapping[int, tuple[tuple[int, int, int], ...]]  # axis -> (column, multiplicity, full width)

    def sizes(self, widths: NDArray[np.int64]) -> Counts:
        size = np.full(len(widths), float(prod(s for axis, s in enumerate(self.shape) if axis not in self.parts)))
        for axis, parts in self.parts.items():
            fixed = self.shape[axis] - sum(multiplicity * full for _, multiplicity, full in parts)
            size *= fixed + sum(multiplicity * widths[:, column] for column, multiplicity, _ in parts)
        return size


def _axis_parts(name: str, blocks: Sequence[Block]) -> dict[int, tuple[tuple[int, int, int], ...]]:
    parts: dict[int, list[tuple[int, int, int]]] = {}
    for column, block in enumerate(blocks):
        for (tensor, axis), index in block.slots.items():
            if tensor == name:
                parts.setdefault(axis, []).append((column, index.shape[1], block.width))
    return {axis: tuple(found) for axis, found in parts.items()}


def _positions(network: Network) -> dict[str, float]:
    """Multiply-accumulates per element of each weight: how many output positions it serves."""
    found: dict[str, float] = {}
    for node in network.nodes:
        row = find_row(node)
        macs = row.macs(node, network) if row else 0
        weight = node.input(1)
        if macs and weight in network.constants:
            found[weight] = found.get(weight, 0.0) + macs / network.constants[weight].size
    return found
