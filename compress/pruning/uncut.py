"""Uncut: puts the weights of a cut network back into the original's shapes, with zeros for the removed channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from compress.graph.cut import kept_slots
from compress.graph.groups import Block
from compress.network import Array, Network
from compress.ops.row import Indices


def uncut(smaller: Network, original: Network, keep: Mapping[str, ArrayLike], blocks: Iterable[Block]) -> Network:
    """Return the original with the smaller network's weights, and zeros in the weights that make or read a removed
    channel, so that it computes the same.

    A cut of the result to the same units gives the smaller network again, unless a refit or a rewrite added constants
    to that one. Whole numbers (amounts of a Pad, sizes of a Split) steer the graph and stay as in the original, and so
    do the removed channels of other constants, by which a network may divide.

    Args:
        keep: block name -> indices of the units that the smaller network has; blocks not named are whole.
        blocks: the original's blocks.
    """
    chosen = [(block, np.unique(np.asarray(keep[block.name], np.int64))) for block in blocks if block.name in keep]
    emptied = {tensor for block, _ in chosen for tensor, _ in (*block.filters, *(slot for slot, _ in block.readers))}
    by_tensor: dict[str, dict[int, Indices]] = {}
    for (tensor, axis), index in kept_slots(original, chosen, original.constants).items():
        by_tensor.setdefault(tensor, {})[axis] = index
    constants = {}
    for name, whole in original.constants.items():
        part = smaller.constants.get(name)
        if part is not None and np.issubdtype(whole.dtype, np.floating):
            rest = np.zeros_like(whole) if name in emptied else whole
            constants[name] = _spread(part, rest, by_tensor.get(name, {}))
    return original.with_constants(constants)


def _spread(part: Array, rest: Array, kept: Mapping[int, Indices]) -> Array:
    """Return `rest` with `part` at the kept indices; only `rest` if the part does not fit there."""
    places = [kept.get(axis, np.arange(size)) for axis, size in enumerate(rest.shape)]
    if part.shape != tuple(len(place) for place in places):
        return rest
    found = rest.copy()
    found[np.ix_(*places)] = part
    return found
