"""Settle: channels that have the same value for all images become zero, and their readers keep the value as a bias.

A large constant in front of a layer makes the steps of the layer's weights too large and carries no information. A
layer without padding takes the constant into its bias. At the edge of a padded layer, zeros stand beside the constant,
which no bias can replace. There one constant channel, the largest, stays and replaces all the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.graph.fold import check_same_function
from compress.graph.groups import Block, prunable_blocks
from compress.network import Array, Network, Node
from compress.ops.row import Indices
from compress.pruning.effective_weights import trained
from compress.pruning.layer_error import FLAT
from compress.pruning.reconstruct import Refit, as_rows
from compress.pruning.statistics import Vector, readers
from compress.pruning.unfold_patches import Patches
from compress.quantising.activations import activations


@dataclass(frozen=True)
class _Levels:
    """Facts about each channel of a tensor, (C,): its mean, and whether it is one constant other than zero.

    A channel that is zero on these images has no constant to remove, and may differ from zero on other images.
    """

    mean: Vector
    flat: NDArray[np.bool_]


@dataclass(frozen=True)
class _Reader:
    """A layer that reads a block: the units' indices on the tensor that it reads and on its weight, each (width,)."""

    node: Node
    tensor: str
    axis: int
    channels: Indices
    columns: Indices
    padded: bool


def settled(network: Network, images: NDArray[np.float32], batch: int = 64) -> Network:
    """Return a network with the same function on such images, in which constant channels of prunable blocks are zero.

    These channels keep their places, so that the meaning of widths does not change. They are the first to be removed
    when channels are cut.

    Args:
        images: (N, *input_shape) float32, real data; a thousand are enough.
        batch: images per run; bounds the memory.

    Returns:
        The network itself if no channel is constant.

    Raises:
        InvalidInput: there are no images, or the result's outputs differ (checked in onnxruntime on some of the
            images).
    """
    found = {block: _readers(network, block) for block in prunable_blocks(network)}
    tensors = {reader.tensor: reader.axis for each in found.values() for reader in each}
    if not tensors:
        return network
    levels, result = _levels(network, tensors, images, batch), network
    for block, each in found.items():
        result = _without_constants(result, block, each, levels) if each else result
    if result is not network:
        check_same_function(result, network, images[:8], "constant channels cannot be emptied without loss")
    return result


def _readers(network: Network, block: Block) -> Sequence[_Reader]:
    """Return all layers that read the block, or none if a unit is not exactly one column of every such layer."""
    made = []
    for (slot, tensor), nodes in readers(network, [block]).items():
        node, columns = nodes[0], block.slots[slot]
        axis = next(axis for name, axis in block.slots if name == tensor)
        channels = block.slots[tensor, axis]
        alone = network.sole_consumer(slot[0]) is node and node.get("group", 1) == 1 and node.op_type != "MatMul"
        if not alone or columns.shape[1] != 1 or channels.shape[1] != 1:
            return ()
        padded = any(Patches.of(network, node).pads)
        made.append(_Reader(node, tensor, axis, channels[:, 0], columns[:, 0], padded))
    return tuple(made)


def _levels(
    network: Network, tensors: Mapping[str, int], images: NDArray[np.float32], batch: int
) -> dict[str, _Levels]:
    low: dict[str, Vector] = {}
    high: dict[str, Vector] = {}
    found: dict[str, _Levels] = {}
    for values in activations(network, list(tensors), images, batch):
        for name, value in values.items():
            others = tuple(axis for axis in range(value.ndim) if axis != tensors[name])
            low[name] = np.minimum(low.get(name, np.inf), value.min(others).astype(np.float64))
            high[name] = np.maximum(high.get(name, -np.inf), value.max(others).astype(np.float64))
        found = {name: _level(low[name], high[name]) for name in tensors}
        if not any(each.flat.any() for each in found.values()):
            break  # a channel that has had two values never becomes constant again
    return found


def _level(low: Vector, high: Vector) -> _Levels:
    middle = (low + high) / 2
    return _Levels(middle, high - low < FLAT**0.5 * np.abs(middle))


def _without_constants(
    network: Network, block: Block, found: Sequence[_Reader], levels: Mapping[str, _Levels]
) -> Network:
    flat = np.logical_and.reduce([levels[each.tensor].flat[each.channels] for each in found])
    left = _left(found, levels, flat)
    gone = np.setdiff1d(np.flatnonzero(flat), [] if left is None else [left])
    gone = gone[: block.width - max(block.minimum, 1)]
    if not len(gone) or not _live(network, block, gone):
        return network
    refit = Refit(network, network)
    for each in found:
        refit.apply([network.node(each.node.name)], *_moved(network, each, levels[each.tensor].mean, gone, left))
    result = refit.result()
    return result.with_constants(_silent(result, block, gone))


def _left(found: Sequence[_Reader], levels: Mapping[str, _Levels], flat: NDArray[np.bool_]) -> int | None:
    """Return the unit that replaces all other constants for padded layers; None if there is none."""
    sizes = [np.abs(levels[each.tensor].mean[each.channels]) for each in found if each.padded]
    if not sizes:
        return None
    least = np.where(flat, np.minimum.reduce(sizes), 0.0)
    return int(least.argmax()) if least.any() else None


def _moved(
    network: Network, reader: _Reader, mean: Vector, gone: Indices, left: int | None
) -> tuple[NDArray[np.float64], Vector]:
    """Return the change of the reader's weight (outputs, inputs, taps) and the change of its bias (outputs,)."""
    rows = as_rows(network.constants[reader.node.inputs[1]], reader.node)
    change, level = np.zeros_like(rows), mean[reader.channels]
    lost = rows[:, reader.columns[gone]]
    change[:, reader.columns[gone]] = -lost
    said = np.einsum("oit,i->ot", lost, level[gone])
    if not reader.padded:
        return change, said.sum(1)
    if left is not None:
        change[:, reader.columns[left]] += said / level[left]
    return change, np.zeros(len(rows))


def _places(network: Network, block: Block, units: Indices) -> dict[tuple[str, int], Indices]:
    """Return the axes of the filters, biases and norms that produce the units, with the units' indices on them."""
    vectors = {name for name in trained(network) if network.constants[name].ndim == 1}
    slots = [slot for slot in block.slots if slot in block.filters or slot[0] in vectors]
    return {slot: block.slots[slot][units].reshape(-1) for slot in slots}


def _live(network: Network, block: Block, units: Indices) -> bool:
    """Return whether any weight, bias or norm constant that produces these units is still nonzero."""
    places = _places(network, block, units).items()
    return any(np.take(network.constants[tensor], index, axis).any() for (tensor, axis), index in places)


def _silent(network: Network, block: Block, units: Indices) -> dict[str, Array]:
    """Return the constants with which these units output zero."""
    made: dict[str, Array] = {}
    for (tensor, axis), index in _places(network, block, units).items():
        made[tensor] = made.get(tensor, network.constants[tensor]).copy()
        np.moveaxis(made[tensor], axis, 0)[index] = 0.0
    return made
