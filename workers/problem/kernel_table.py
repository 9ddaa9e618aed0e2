"""The kernel table of one node: the node's kernels and cost at each of the few values that it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.counting.node_cost import NodeCost
from hw_profiles.ops import Op
from search.space import Levelled, Values


@dataclass(frozen=True)
class Part:
    """One node's share of one rewritten network: its kernels by runtime, in order of execution, its cost, and its
    contribution to each metric that is counted by node.
    """

    ops: Mapping[str, tuple[Op, ...]]
    cost: NodeCost
    counts: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def mark(self) -> tuple[Any, ...]:
        """A key that is the same for two parts if no table can tell them apart."""
        kernels = ((name, *(op.key for op in ops)) for name, ops in self.ops.items() if ops)
        return (*kernels, self.cost, *sorted((name, number) for name, number in self.counts.items() if number))


NOTHING = Part({}, NodeCost())
"""The part that stands for a node that does not exist in a network."""


@dataclass(eq=False)
class NodeTable:
    """One node of the whole network, with its part at each of its points.

    `knobs` are the knobs that the node depends on. `sums` has the same knobs in groups; within a group of widths, only
    the sum of the widths matters (as for the three parts of a residual stream that are one tensor here). `parts` maps
    coordinates to parts; a coordinate is the sum of a group's widths, or the level of a knob that is not a width.
    """

    node: str
    knobs: tuple[Levelled, ...]
    sums: tuple[tuple[str, ...], ...]
    parts: dict[tuple[int, ...], Part] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """Number of entries of the table: the product of the numbers of its knobs' levels."""
        return prod(knob.level_count for knob in self.knobs)

    @cached_property
    def _places(self) -> dict[str, NDArray[np.int64]]:
        """Map of each knob to (levels,) amounts: how much each level adds to the coordinate of the knob's group."""
        return {knob.name: coordinates(knob) for knob in self.knobs}

    @cached_property
    def distinct(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Two arrays: the coordinates of the distinct points, of shape (points, groups); and the index of the point for
        each combination of levels, with one axis per knob.
        """
        if not self.sums:
            return np.zeros((1, 0), dtype=np.int64), np.zeros((), dtype=np.int64)
        axes = np.meshgrid(*self._places.values(), indexing="ij")
        by_name = dict(zip(self._places, axes, strict=True))
        totals = np.stack([np.sum([by_name[name] for name in group], axis=0) for group in self.sums])
        rows, where = np.unique(totals.reshape(len(self.sums), -1), axis=1, return_inverse=True)
        return rows.T.astype(np.int64), where.reshape(totals.shape[1:]).astype(np.int64)

    @property
    def ids(self) -> NDArray[np.int64]:
        """An array (*levels of each knob) with the index of the distinct point at these levels."""
        return self.distinct[1]

    @cached_property
    def distinct_parts(self) -> tuple[Part, ...]:
        """The part of each distinct point, by index."""
        return tuple(self.parts[tuple(int(size) for size in row)] for row in self.distinct[0])

    def levels(self, values: Values) -> tuple[int, ...]:
        """Return the index into `ids` at these values."""
        return tuple(knob.level(values[knob.name]) for knob in self.knobs)

    def at(self, values: Values) -> tuple[int, ...]:
        """Return the coordinates at these values."""
        place = {knob.name: int(self._places[knob.name][knob.level(values[knob.name])]) for knob in self.knobs}
        return tuple(sum(place[name] for name in group) for group in self.sums)

    def table(self, number: Callable[[Part], float]) -> NDArray[np.float64]:
        """Return an array (*levels of each knob) with one number for each part, such as milliseconds or bytes."""
        return np.asarray(np.array([number(part) for part in self.distinct_parts])[self.ids])


def coordinates(knob: Levelled) -> NDArray[np.int64]:
    """Return (levels,) the widths of a width knob, or the levels themselves of any other knob."""
    count = knob.level_count
    if knob.role != "width":
        return np.arange(count)
    return np.array([knob.value(level) for level in range(count)], dtype=np.int64)
