"""Cut: physically remove channels. Importance only scores channels, and the scheme only chooses them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.errors import InvalidInput
from compress.graph.flow import trace
from compress.graph.groups import Block, groups
from compress.network import Array, Network, TensorType, frozen
from compress.ops import find_row
from compress.ops.row import Indices, Kept, Slot

Keep = Mapping[str, ArrayLike]


def cut(network: Network, keep: Keep, blocks: Iterable[Block] | None = None) -> Network:
    """Return a smaller network that keeps only these units.

    It computes what the original would compute if the removed channels were zero wherever they are read.

    Args:
        keep: block name -> indices of the units that stay; blocks not named stay whole.
        blocks: the network's blocks, if the caller already has them.

    Raises:
        InvalidInput: a block is unknown or frozen, an index is out of range, or too few units of a block would stay.
    """
    known = {block.name: block for block in (blocks or (b for g in groups(network) for b in g.blocks))}
    stays = {name: _checked(known, name, chosen) for name, chosen in keep.items()}
    kept = kept_slots(network, [(known[name], chosen) for name, chosen in stays.items()])
    if not kept:
        return network
    sight = Kept(network, trace(network).axes, kept)
    nodes, steering = [], dict[str, Array]()
    for node in network.nodes:
        row = find_row(node)
        if row is None:
            nodes.append(node)
            continue
        resized = row.resize(node, sight)
        nodes.append(resized.node)
        steering |= resized.constants
    constants = {**_sliced(network.constants, kept), **steering}
    types = {name: _resized_type(name, kind, sight) for name, kind in network.types.items()}
    return replace(network, nodes=tuple(nodes), constants=frozen(constants), types=types)


def kept_slots(
    network: Network, chosen: Iterable[tuple[Block, Indices]], tensors: Container[str] | None = None
) -> dict[Slot, Indices]:
    """Return the kept indices, ascending, of each slot that loses indices; only of `tensors` if these are given."""
    masks: dict[Slot, NDArray[np.bool_]] = {}
    for block, stays in chosen:
        if len(stays) == block.width:
            continue
        removed = np.ones(block.width, dtype=bool)
        removed[stays] = False
        for slot, index in block.slots.items():
            if tensors is None or slot[0] in tensors:
                mask = masks.setdefault(slot, np.ones(network.shape(slot[0])[slot[1]], dtype=bool))
                mask[index[removed].reshape(-1)] = False
    return {slot: np.flatnonzero(mask) for slot, mask in masks.items()}


def _checked(known: Mapping[str, Block], name: str, chosen: ArrayLike) -> Indices:
    if name not in known:
        raise InvalidInput("keep", name, f"no block {name!r}; the blocks are {sorted(known)}")
    block, index = known[name], np.unique(np.asarray(chosen, dtype=np.int64))
    if index.size and (index[0] < 0 or index[-1] >= block.width):
        raise InvalidInput("keep", index.tolist(), f"block {name!r} has units 0..{block.width - 1}")
    if len(index) < block.minimum:
        why = block.reason or "no tensor may become empty"
        raise InvalidInput(
            "keep", len(index), f"block {name!r} must keep at least {block.minimum} of {block.width} units ({why})"
        )
    return index


def _sliced(constants: Mapping[str, Array], kept: Mapping[Slot, Indices]) -> dict[str, Array]:
    result = dict(constants)
    for (tensor, axis), index in kept.items():
        if tensor in result:
            result[tensor] = np.take(result[tensor], index, axis=axis)
    return result


def _resized_type(name: str, kind: TensorType, kept: Kept) -> TensorType:
    return replace(kind, shape=kept.shape(name)) if kept.touched(name) else kind
