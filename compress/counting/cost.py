"""Cost: the parameters, multiply-accumulates and bytes of a network at its own widths or, vectorised, at others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compress.counting.work import macs, weights
from compress.graph.groups import Block
from compress.network import Array, Network, Node

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """Exact counts of a network.

    `parameters` are weights (without running statistics), `macs` are at batch 1, `size_bytes` is the length of the
    saved file, `nonzeros` are the parameters that are not zero, and `stored_bytes` is the file's length if each
    constant is stored as in `sparse_bytes`.
    """

    parameters: int
    macs: int
    size_bytes: int
    nonzeros: int
    stored_bytes: int


def cost(network: Network) -> Cost:
    """Count a network in its present form."""
    held = [network.constants[name] for name in weights(network)]
    size_bytes = len(network.save())
    stored = [network.stored(name) for name in network.constants]
    saved_bytes = sum(value.nbytes - sparse_bytes(value) for value in stored)
    return Cost(
        parameters=sum(value.size for value in held),
        macs=sum(macs(node, network) for node in network.nodes),
        size_bytes=size_bytes,
        nonzeros=sum(int(np.count_nonzero(value)) for value in held),
        stored_bytes=size_bytes - saved_bytes,
    )


def sent(counted: Cost, file: bytes) -> Cost:
    """Return the cost of a network that was uploaded as this file; `size_bytes` is at most the file's size.

    The file may be smaller than `Network.save` would make it, e.g. with weights in float16. Counting more bytes would
    credit compression with bytes that the file never had.
    """
    saved_bytes = 0
    for tensor in onnx.load_model_from_string(file).graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype.kind in "fiu":  # numpy has no types of fewer than 8 bits; such numbers are counted as dense
            # A file may store numbers as integers of variable length, which take fewer bytes than an array.
            saved_bytes += max(0, min(value.nbytes, tensor.ByteSize()) - sparse_bytes(value))
    return replace(
        counted,
        size_bytes=min(counted.size_bytes, len(file)),
        stored_bytes=min(counted.stored_bytes, len(file) - saved_bytes),
    )


def sparse_bytes(value: Array) -> int:
    """Return the bytes of an array, with indices, in the smallest of four forms.

    - Dense: all numbers.
    - Bitmap: one bit per number, then the nonzero numbers.
    - Gaps of 16 bits, or of 8 bits: before each nonzero number, the count of zeros since the previous nonzero number in
      C order. A gap too large for its bits is split by storing a zero as a number (Han et al., Deep Compression,
      arXiv 1510.00149). Four more bytes hold the number of gaps.
    """
    at = np.flatnonzero(value)
    gaps = np.diff(at, prepend=-1) - 1
    forms = [value.nbytes, -(-value.size // 8) + len(at) * value.itemsize]
    for bits in (8, 16):
        entries = len(at) + int((gaps // 2**bits).sum())
        forms.append(4 + entries * (bits // 8 + value.itemsize))
    return min(forms)


def sparse_share(density: Counts, itemsize: Counts) -> Counts:
    """Return the expected bytes per number of `sparse_bytes` if a random share `density` is not zero; vectorised."""
    forms = [itemsize, 1 / 8 + density * itemsize]
    for bits in (8, 16):
        far = (1.0 - density) ** 2**bits  # probability that a gap needs one more stored zero
        forms.append(density * (1.0 + far / np.maximum(1.0 - far, 1e-12)) * (bits // 8 + itemsize))
    return np.asarray(np.minimum.reduce(forms))


class CostModel:
    """A model that counts any cut of a network without making it: a constant's size is the product of its axes' widths.

    Args:
        network: the uncut network.
        blocks: the blocks whose widths vary, in the order of the columns of `widths`.
    """

    def __init__(self, network: Network, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(blocks)
        names = tuple(network.constants)
        self._shares = [_Share(network.shape(name), _axis_parts(name, blocks)) for name in names]
        held = set(weights(network))
        self._held = np.array([name in held for name in names], dtype=np.float64)
        self._bytes = np.array([network.stored(name).itemsize for name in names], dtype=np.float64)
        positions = _positions(network)
        self._positions = np.array([positions.get(name, 0.0) for name in names])
        # These are products of activations with other activations, whose widths do not change.
        self._other_macs = sum(macs(node, network) for node in network.nodes if not _weight(node, network))
        self._overhead_bytes = len(network.save()) - sum(network.stored(name).nbytes for name in names)

    def counts(self, widths: NDArray[np.int64]) -> Mapping[str, Counts]:
        """Return parameters, macs and size_bytes, each (n,), at `widths` (n, blocks).

        `size_bytes` counts the weights exactly and takes the bytes of the graph from the uncut file.
        """
        sizes = np.stack([share.sizes(widths) for share in self._shares], axis=1)
        return {
            "parameters": sizes @ self._held,
            "macs": sizes @ self._positions + self._other_macs,
            "size_bytes": sizes @ self._bytes + self._overhead_bytes,
        }


@dataclass(frozen=True)
class _Share:
    """The size of one constant: on each axis, a fixed part plus multiplicity x width for each block on that axis."""

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
    """Return the multiply-accumulates per element of each weight, i.e. the number of output positions that use it."""
    found: dict[str, float] = {}
    for node in network.nodes:
        weight = _weight(node, network)
        if weight:
            found[weight] = found.get(weight, 0.0) + macs(node, network) / network.constants[weight].size
    return found


def _weight(node: Node, network: Network) -> str:
    """Return the constant that a node's work is proportional to; "" if there is none."""
    return node.input(1) if node.input(1) in network.constants and network.constants[node.input(1)].size else ""
