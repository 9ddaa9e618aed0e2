"""Row: all knowledge of one op, as a row of a table, so that no other code asks "is it a Conv?"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import Unsupported
from compress.network import Array, Network, Node

Indices = NDArray[np.int64]
Slot = tuple[str, int]  # (tensor, axis): one axis of one activation or constant that carries channels
TorchOp = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Link:
    """A tie: `a` at `a_index[i]` and `b` at `b_index[i]` are one channel, kept or removed together."""

    a: Slot
    a_index: Indices
    b: Slot
    b_index: Indices


@dataclass(frozen=True)
class Flow:
    """The way channels pass through one node.

    Attributes:
        axes: the channel axis of each output tensor; None if a tensor has no channel axis.
        links: pairs of channels that must be kept or removed together.
        frozen: tensors whose channels must all stay, with the reason.
        filters: weight axes whose removal makes an output channel vanish (a conv's axis 0).
        readers: (weight slot, tensor read): weight axes that read a tensor's channels (a conv's axis 1).
    """

    axes: Mapping[str, int | None] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    frozen: Mapping[str, str] = field(default_factory=dict)
    filters: tuple[Slot, ...] = ()
    readers: tuple[tuple[Slot, str], ...] = ()


@dataclass(frozen=True)
class Resized:
    """A node adjusted to fewer channels, and the new values of the constants (shapes, pads) that only it reads."""

    node: Node
    constants: Mapping[str, Array] = field(default_factory=dict)


class Kept:
    """For every slot, the indices that stay. A row's `resize` reads them."""

    def __init__(self, network: Network, axes: Mapping[str, int | None], kept: Mapping[Slot, Indices]) -> None:
        self.network = network
        self.axes = axes
        self._kept = kept

    def index(self, tensor: str, axis: int | None = None) -> Indices:
        """Return the channel indices, ascending, that stay on the tensor's channel axis; all if nothing is cut."""
        axis = self.axes.get(tensor) if axis is None else axis
        if axis is None:
            raise KeyError(f"{tensor} has no channel axis")
        found = self._kept.get((tensor, axis))
        return np.arange(self.network.shape(tensor)[axis]) if found is None else found

    def touched(self, tensor: str) -> bool:
        """Return whether channels of this tensor are cut."""
        axis = self.axes.get(tensor)
        return axis is not None and (tensor, axis) in self._kept

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of the tensor after the cut, at batch 1."""
        shape = list(self.network.shape(tensor))
        axis = self.axes.get(tensor)
        if axis is not None:
            shape[axis] = len(self.index(tensor))
        return tuple(shape)


Axes = Mapping[str, int | None]


def _no_resize(node: Node, kept: Kept) -> Resized:
    return Resized(node)


def _no_macs(node: Node, network: Network) -> int:
    return 0


@dataclass(frozen=True)
class Row:
    """All knowledge of one op, or of several ops that behave alike.

    Attributes:
        op_types: names in the default ONNX domain.
        build: (node, network) -> a torch function of the node's inputs, in order (None for an omitted input). Raises
            Unsupported for a case that the row does not cover.
        flow: (node, network, channel axis of each known tensor) -> Flow. Raises Unsupported in the same case.
        resize: adjusts attributes, and constants such as shapes and pads, when channels are cut.
        macs: multiply-accumulates at batch 1.
        trained: input positions whose constants training changes (weights, biases).
        running: input positions of running statistics, which a forward pass in train mode updates.
        moded: True if the torch function takes the Mode as its first argument.
    """

    op_types: tuple[str, ...]
    build: Callable[[Node, Network], TorchOp]
    flow: Callable[[Node, Network, Axes], Flow]
    resize: Callable[[Node, Kept], Resized] = _no_resize
    macs: Callable[[Node, Network], int] = _no_macs
    trained: tuple[int, ...] = ()
    running: tuple[int, ...] = ()
    moded: bool = False


@dataclass
class Mode:
    """The mode of a forward pass: batch or running statistics, and how fast running statistics follow the batches."""

    training: bool = False
    momentum: float = 0.1


def whole(size: int) -> Indices:
    """Return the indices 0 .. size-1."""
    return np.arange(size)


def same(a: Slot, b: Slot, size: int) -> Link:
    """Link channel i of `a` to channel i of `b`."""
    return Link(a, whole(size), b, whole(size))


def channel_axis(tensor: str, network: Network, axes: Axes) -> int | None:
    """Return the tensor's channel axis; if it is unknown, axis 1 of an activation that has the batch on axis 0."""
    if tensor in axes:
        return axes[tensor]
    kind = network.types.get(tensor)
    return 1 if kind is not None and kind.batch_axis == 0 and len(kind.shape) > 1 else None


def freeze(tensors: Iterable[str], reason: str) -> Mapping[str, str]:
    """Freeze all these tensors for this reason."""
    return {tensor: reason for tensor in tensors if tensor}


def scalar(value: Any) -> float | int:
    """Return the only number of a 0-d or 1-element array."""
    return np.asarray(value).reshape(-1)[0].item()  # type: ignore[no-any-return]  # numpy types item() as Any


def constant_ints(node: Node, network: Network, position: int) -> tuple[int, ...] | None:
    """Return the integers of a constant input; None if it is omitted. Raises Unsupported if it is computed."""
    name = node.input(position)
    if not name:
        return None
    if name not in network.constants:
        raise Unsupported(f"{node.op_type} with a parameter that another node computes")
    return tuple(int(value) for value in network.constants[name].reshape(-1))
