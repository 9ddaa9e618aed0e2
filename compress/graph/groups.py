"""Groups: the channels of a network that must be kept or removed together, and channels that must stay, and why.

A unit is a set of (tensor, axis, index): all the places where one channel appears, through residual adds, concat,
split, Slice, Pad, flatten and depthwise convolutions. Units that appear in the same places form a block. Any number of
a block's units can be kept, and this number is one knob. Blocks that share a tensor form a group. In a ResNet with
option-A shortcuts, the residual stream is one group of three blocks: channel i of stage 1 is channel 8 + i of stage 2
and channel 24 + i of stage 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from compress.errors import InvalidInput
from compress.graph.flow import Trace, trace
from compress.network import Network
from compress.ops.row import Indices, Slot

SHOWN_LAYERS = 20
"""Number of layer names that an error lists."""
ONE_CHANNEL = "it has one channel, which must stay"
ALL_AT_ONCE = "its channels are tied to each other: they could only be removed all at once, but some must stay"


@dataclass(frozen=True, eq=False)
class Block:
    """Units that appear in the same places; each prunable block is one knob.

    Attributes:
        name: the name of the first layer that produces the units ("layer1.0.conv1"); it is the same in all files of one
            network.
        width: number of units.
        minimum: the least number of units that must stay, so that no tensor becomes empty.
        slots: (tensor, axis) -> indices there, shape (width, multiplicity).
        filters: the weight axes among the slots whose removal makes the channel vanish.
        readers: (weight axis, activation) where the channels are read.
        reason: why the block is frozen; "" if it is prunable.
    """

    name: str
    width: int
    minimum: int
    slots: Mapping[Slot, Indices]
    filters: tuple[Slot, ...]
    readers: tuple[tuple[Slot, str], ...]
    reason: str = ""

    @property
    def prunable(self) -> bool:
        """True if channels can be removed."""
        return not self.reason and self.width > self.minimum

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that produce these channels."""
        return tuple(dict.fromkeys(layer_name(tensor) for tensor, _ in self.filters))


@dataclass(frozen=True, eq=False)
class Group:
    """Ordered blocks that share tensors."""

    name: str
    blocks: tuple[Block, ...] = field(repr=False)

    @property
    def width(self) -> int:
        """Number of units in all blocks."""
        return sum(block.width for block in self.blocks)

    @property
    def prunable(self) -> bool:
        """True if any block is prunable."""
        return any(block.prunable for block in self.blocks)

    @property
    def reason(self) -> str:
        """The reason why all or part of the group is frozen; "" if nothing is."""
        told = "; ".join(dict.fromkeys(block.reason for block in self.blocks if block.reason))
        return told if told or self.prunable else ALL_AT_ONCE if self._is_tied else ONE_CHANNEL

    @property
    def _is_tied(self) -> bool:
        """True if a unit is several channels of one tensor."""
        return any(index.shape[1] > 1 for block in self.blocks for index in block.slots.values())

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that produce the group's channels."""
        return tuple(dict.fromkeys(layer for block in self.blocks for layer in block.layers))


def layer_name(weight: str) -> str:
    """Return a layer's display name: the name of its weight without ".weight"."""
    return weight.removesuffix(".weight")


def unknown_layer(name: str, layers: Sequence[str]) -> InvalidInput:
    """Return the error for a `keep_float` setting that names a layer that is not among the network's `layers`."""
    left = len(layers) - SHOWN_LAYERS
    there = ", ".join(layers[:SHOWN_LAYERS]) + (f" and {left} more" if left > 0 else "")
    return InvalidInput("keep_float", name, f"the network has no layer {name!r}; its layers are {there}")


# A network never changes, and every candidate is cut from the same network.
_known: WeakKeyDictionary[Network, tuple[Group, ...]] = WeakKeyDictionary()


def groups(network: Network) -> tuple[Group, ...]:
    """Return all groups, prunable and frozen, in the execution order of their first layers."""
    if network not in _known:
        _known[network] = _grouped(_blocks(network, trace(network)))
    return _known[network]


def prunable_blocks(network: Network) -> tuple[Block, ...]:
    """Return the blocks that have a knob, in order."""
    return tuple(block for group in groups(network) for block in group.blocks if block.prunable)


def _blocks(network: Network, flow: Trace) -> list[Block]:
    slots = _slots(flow)
    sizes = [network.shape(tensor)[axis] for tensor, axis in slots]
    labels = _components(slots, sizes, flow)
    filters = set(flow.filters)
    reasons = _frozen_units(slots, labels, flow.frozen)
    places: dict[int, list[tuple[int, int]]] = {}
    made = set[int]()
    for position, (slot, own) in enumerate(zip(slots, labels, strict=True)):
        units, counts = np.unique(own, return_counts=True)
        for unit, count in zip(units.tolist(), counts.tolist(), strict=True):
            places.setdefault(unit, []).append((position, count))
        if slot in filters:
            made.update(units.tolist())
    alike: dict[tuple[object, ...], list[int]] = {}
    for unit in sorted(made):
        alike.setdefault((*places[unit], reasons.get(unit, "")), []).append(unit)
    found = [_block(units, places[units[0]], slots, labels, flow, reasons) for units in alike.values()]
    return _with_minimums(_named(sorted(found, key=lambda block: _order(block, flow))))


def _slots(flow: Trace) -> list[Slot]:
    found: dict[Slot, None] = {}
    for link in flow.links:
        found[link.a] = found[link.b] = None
    return list(found)


def _components(slots: list[Slot], sizes: list[int], flow: Trace) -> list[Indices]:
    """Return the unit of every index of every slot."""
    starts = dict(zip(slots, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    total = sum(sizes)
    if not total:
        return []
    a = np.concatenate([starts[link.a] + link.a_index for link in flow.links])
    b = np.concatenate([starts[link.b] + link.b_index for link in flow.links])
    graph = coo_array((np.ones(len(a), dtype=bool), (a, b)), shape=(total, total))
    _, labels = connected_components(graph, directed=False)
    return [labels[starts[slot] : starts[slot] + size] for slot, size in zip(slots, sizes, strict=True)]


def _frozen_units(slots: list[Slot], labels: list[Indices], frozen: Mapping[str, str]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for (tensor, _), own in zip(slots, labels, strict=True):
        if tensor in frozen:
            for unit in own.tolist():
                reasons.setdefault(unit, frozen[tensor])
    return reasons


def _block(
    units: list[int],
    places: list[tuple[int, int]],
    slots: list[Slot],
    labels: list[Indices],
    flow: Trace,
    reasons: Mapping[int, str],
) -> Block:
    rank = np.full(max(units) + 1, -1)
    rank[units] = np.arange(len(units))
    where: dict[Slot, Indices] = {}
    for position, count in places:
        own = labels[position]
        order = np.where(own < len(rank), rank[np.minimum(own, len(rank) - 1)], -1)
        index = np.flatnonzero(order >= 0)
        where[slots[position]] = index[np.argsort(order[index], kind="stable")].reshape(-1, count)
    filters = tuple(slot for slot in flow.filters if slot in where)
    readers = tuple((slot, tensor) for slot, tensor in flow.readers if slot in where)
    return Block(layer_name(filters[0][0]), len(units), 1, where, filters, readers, reasons.get(units[0], ""))


def _order(block: Block, flow: Trace) -> tuple[int, int]:
    first = block.filters[0]
    return flow.filters.index(first), int(block.slots[first].min())


def _named(blocks: list[Block]) -> list[Block]:
    """Make the blocks' names unique, because several blocks may come from one layer."""
    result, seen = [], dict[str, int]()
    for block in blocks:
        seen[block.name] = seen.get(block.name, 0) + 1
        name = block.name if seen[block.name] == 1 else f"{block.name}/{seen[block.name]}"
        result.append(_changed(block, name=name))
    return result


def _with_minimums(blocks: list[Block]) -> list[Block]:
    """Set each block's minimum: 0 if all its tensors also hold earlier blocks that cannot vanish, else 1."""
    covered: set[Slot] = set()
    result = []
    for block in blocks:
        minimum = 0 if covered.issuperset(block.slots) else 1
        if block.reason:
            minimum = block.width
        covered.update(block.slots if minimum else ())
        result.append(_changed(block, minimum=minimum))
    return result


def _changed(block: Block, *, name: str | None = None, minimum: int | None = None) -> Block:
    return Block(
        block.name if name is None else name,
        block.width,
        block.minimum if minimum is None else minimum,
        block.slots,
        block.filters,
        block.readers,
        block.reason,
    )


def _grouped(blocks: Iterable[Block]) -> tuple[Group, ...]:
    members: list[tuple[set[Slot], list[Block]]] = []
    for block in blocks:
        touching = [entry for entry in members if not entry[0].isdisjoint(block.slots)]
        rest = [entry for entry in members if entry[0].isdisjoint(block.slots)]
        merged = [b for _, bs in touching for b in bs]
        slots = set(block.slots).union(*(s for s, _ in touching))
        position = members.index(touching[0]) if touching else len(members)
        members = [*rest[:position], (slots, [*merged, block]), *rest[position:]]
    return tuple(Group(group[0].name, tuple(group)) for _, group in members)
