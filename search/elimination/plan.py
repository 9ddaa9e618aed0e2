"""Plan: the steps that minimise out all columns but those that a question fixes or asks for.

What does not depend on the levels of the fixed columns is computed once. The rest is a few additions of small tables
for each question. Messages of few entries are computed once for all levels of the fixed columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from search.elimination.buckets import mini_buckets
from search.elimination.factor import Factor, aligned_shape, minimised, total, union

_PREPARED_ENTRIES = 1 << 16  # a message of at most so many entries is computed for all levels of the fixed columns


@dataclass(frozen=True)
class Message:
    """The result of an earlier step, known only once the levels of the fixed columns are."""

    step: int
    columns: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Addend:
    """A table to be looked up at the fixed levels, or an earlier step's result, and its shape in the sum."""

    source: NDArray[np.float64] | int
    columns: tuple[int, ...]
    shape: tuple[int, ...]

    def array(self, at: Sequence[int | slice], results: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        if isinstance(self.source, int):
            return results[self.source].reshape(self.shape)
        return np.asarray(self.source[tuple([at[column] for column in self.columns])]).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Step:
    """A sum of addends, minimised over one axis."""

    addends: tuple[Addend, ...]
    axis: int

    def result(self, at: Sequence[int | slice], results: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        added = self.addends[0].array(at, results)
        for addend in self.addends[1:]:
            added = added + addend.array(at, results)
        return np.asarray(added.min(axis=self.axis))


@dataclass(frozen=True, eq=False)
class Elimination:
    """A sum of factors, the order of its columns, and the messages that all plans share."""

    factors: tuple[Factor, ...]
    order: tuple[int, ...]
    sizes: tuple[int, ...]
    limit_entries: int
    messages: dict[tuple[int | None, tuple[Factor, ...]], Factor] = field(default_factory=dict)

    def message(self, factors: Sequence[Factor], column: int | None) -> Factor:
        """Return the sum of the factors, minimised over the column if one is given; the same question is answered from
        memory.
        """
        key = (column, tuple(factors))
        if key not in self.messages:
            self.messages[key] = total(factors) if column is None else minimised(factors, column)
        return self.messages[key]


class Plan:
    """The least sum for each level of the column `asked`, or the least sum alone, given the levels of `fixed`."""

    def __init__(self, elimination: Elimination, fixed: frozenset[int], asked: int | None = None) -> None:
        self._elimination = elimination
        self._fixed = fixed
        self._given = fixed if asked is None else fixed | {asked}
        self._steps: list[Step] = []
        self.exact = True
        live: list[Factor | Message] = list(elimination.factors)
        for column in elimination.order:
            if column not in self._given:
                live = self._without(column, live)
        self._rest = tuple(self._addend(item, (asked,) if asked in item.columns else ()) for item in live)

    def least(self, at: Sequence[int | slice]) -> NDArray[np.float64]:
        """Return the least sum, of shape (), (1,) or (levels of the asked column,).

        `at` has one entry for each column: its level if it is fixed, else a slice of all levels.
        """
        results: list[NDArray[np.float64]] = []
        for step in self._steps:
            results.append(step.result(at, results))
        return np.asarray(sum(addend.array(at, results) for addend in self._rest))

    def _without(self, column: int, live: Sequence[Factor | Message]) -> list[Factor | Message]:
        """Return the live tables with those of the column replaced by their least sums over its levels."""
        bucket = [item for item in live if column in item.columns]
        groups = mini_buckets(bucket, self._free, self._elimination.sizes, self._elimination.limit_entries)
        self.exact &= len(groups) <= 1
        return [item for item in live if column not in item.columns] + [self._minimised(g, column) for g in groups]

    def _free(self, item: Factor | Message) -> list[int]:
        return [column for column in item.columns if column not in self._given]

    def _minimised(self, group: Sequence[Factor | Message], column: int) -> Factor | Message:
        columns = union(item.columns for item in group)
        factors = [item for item in group if isinstance(item, Factor)]
        if len(factors) == len(group) and self._prepared(columns):
            return self._elimination.message(factors, column)
        kept = tuple(c for c in columns if c not in self._fixed)
        addends = [self._addend(item, kept) for item in self._constants_summed(group)]
        # The small tables come first, so that as few additions as possible are additions of large tables.
        self._steps.append(Step(tuple(sorted(addends, key=lambda a: prod(a.shape))), kept.index(column)))
        return Message(len(self._steps) - 1, tuple(c for c in columns if c != column))

    def _constants_summed(self, group: Sequence[Factor | Message]) -> list[Factor | Message]:
        """Return the group with the tables in which no column is fixed summed to one."""
        constant = [f for f in group if isinstance(f, Factor) and self._fixed.isdisjoint(f.columns)]
        others = [item for item in group if item not in constant]
        return [*others, self._elimination.message(constant, None)] if constant else others

    def _prepared(self, columns: Sequence[int]) -> bool:
        entries = prod(self._elimination.sizes[column] for column in columns)
        return entries <= _PREPARED_ENTRIES or self._fixed.isdisjoint(columns)

    def _addend(self, item: Factor | Message, to: Sequence[int | None]) -> Addend:
        """Return the item as an addend of a table over the columns `to`, which are not fixed."""
        sizes = self._elimination.sizes
        own = [column for column in item.columns if column not in self._fixed]
        shape = aligned_shape(own, [sizes[column] for column in own], [c for c in to if c is not None])
        return Addend(item.table if isinstance(item, Factor) else item.step, item.columns, shape)
