"""Row: all that is known of one op. Knowledge of an op is a row of a table; nothing else asks "is it a Conv?"."""

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
    """`a` at `a_index[i]` and `b` at `b_index[i]` are one channel: they live or die together."""

    a: Slot
    a_index: Indices
    b: Slot
    b_index: Indices


@dataclass(frozen=True)
class Flow:
    """How channels pass through one node.

    Attributes:
        axes: the channel axis of each output tensor, None where it has none.
        links: which channels are one.
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
    """A node adjusted to fewer channels, and the constants that it alone steers by (shapes, pads), renewed."""

    node: Node
    constants: Mapping[str, Array] = field(default_factory=dict)


class Kept:
    """What stays of every slot, for the rows' `resize`."""

    def __init__(self, network: Network, axes: Mapping[str, int | None], kept: Mapping[Slot, Indices]) -> None:
        self.network = network
        self.axes = axes
        self._kept = kept

    def index(self, tensor: str, axis: int | None = None) -> Indices:
        """The channel indices that stay on the tensor's channel axis, ascending; all where nothing is cut."""
        axis = self.axes.get(tensor) if axis is None else axis
        if axis is None:
            raise KeyError(f"{tensor} has no channel axis")
        found = self._kept.get((tensor, axis))
        return np.arange(self.network.shape(tensor)[axis]) if found is None else found

    def touched(self, tensor: str) -> bool:
        """Whether channels of this tensor are cut."""
        axis = self.axes.get(tensor)
        return axis is not None and (tensor, axis) in self._kept

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of the tensor after the cut, at batch 1."""
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
    """One op, or several that behave alike.

    Attributes:
        op_types: names in the default ONNX domain.
        build: (node, network) -> a torch function of the node's inputs, in order (None for those left out).
            Raises Unsupported for a case it does not cover.
        flow: (node, network, channel axis of each known tensor) -> Flow. Raises Unsupported likewise.
        resize: adjusts attributes and steering constants when channels are cut.
        macs: multiply-accumulates at batch 1.
        trained: input positions whose constants training moves (weights, biases).
        running: input positions of running statistics, which a forward pass in train mode moves.
        moded: the torch function takes the Mode first.
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
    """How a pass is run: batch statistics or running ones, and how fast the running ones follow."""

    training: bool = False
    momentum: float = 0.1


def whole(size: int) -> Indices:
    """0 .. size-1."""
    return np.arange(size)


def same(a: Slot, b: Slot, size: int) -> Link:
    """Channel i of `a` is channel i of `b`."""
    return Link(a, whole(size), b, whole(size))


def channel_axis(tensor: str, network: Network, axes: Axes) -> int | None:
    """The tensor's channel axis; where nobody said so, axis 1 of an activation with a leading batch."""
    if tensor in axes:
        return axes[tensor]
    kind = network.types.get(tensor)
    return 1 if kind is not None and kind.batch_axis == 0 and len(kind.shape) > 1 else None


def freeze(tensors: Iterable[str], reason: str) -> Mapping[str, str]:
    """Every one of these tensors, with this reason."""
    return {tensor: reason for tensor in tensors if tensor}


def scalar(value: Any) -> float | int:
    """The one number of a 0-d or 1-element array."""
    return np.asarray(value).reshape(-1)[0].item()  # type: ignore[no-any-return]  # numpy types item() as Any


def constant_ints(node: Node, network: Network, position: int) -> tuple[int, ...] | None:
    """The integers of a constant input; None where it is left out. Raises Unsupported where it is computed."""
    name = node.input(position)
    if not name:
        return None
    if name not in network.constants:
        raise Unsupported(f"{node.op_type} steered by a computed tensor")
    return tuple(int(value) for value in network.constants[name].reshape(-1))
