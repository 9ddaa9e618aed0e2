"""Factor: a table over a few columns of the level arrays. A latency is a constant plus a sum of factors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.terms import Terms


@dataclass(frozen=True, eq=False)
class Factor:
    """A table with one axis for each of its columns, which ascend."""

    columns: tuple[int, ...]
    table: NDArray[np.float64]


def factors_of(terms: Terms) -> list[Factor]:
    """Return the tables of a latency, times its scale: one for each set of columns that no other set contains."""
    summed: dict[tuple[int, ...], NDArray[np.float64]] = {}
    for term in terms.terms:
        at = [terms.knobs.index(name) for name in term.knobs]
        columns = tuple(sorted(at))
        table = terms.scale * term.table_ms.transpose([at.index(column) for column in columns])
        summed[columns] = summed[columns] + table if columns in summed else table
    found: list[Factor] = []
    for columns in sorted(summed, key=lambda columns: (-len(columns), columns)):
        home = next((i for i, factor in enumerate(found) if set(columns) <= set(factor.columns)), None)
        if home is None:
            found.append(Factor(columns, summed[columns]))
        else:
            found[home] = total([found[home], Factor(columns, summed[columns])])
    return found


def union(scopes: Iterable[Iterable[int]]) -> tuple[int, ...]:
    """Return all columns of these scopes, ascending."""
    return tuple(sorted({column for scope in scopes for column in scope}))


def aligned_shape(columns: Sequence[int], shape: Sequence[int], to: Sequence[int]) -> tuple[int, ...]:
    """Return the shape that lets a table over `columns` be added to a table over `to`: 1 on the axes that it lacks."""
    sizes = dict(zip(columns, shape, strict=True))
    return tuple(sizes.get(column, 1) for column in to)


def total(factors: Sequence[Factor]) -> Factor:
    """Return the sum of factors, as a table over all of their columns."""
    columns = union(factor.columns for factor in factors)
    tables = [f.table.reshape(aligned_shape(f.columns, f.table.shape, columns)) for f in factors]
    return Factor(columns, np.asarray(sum(tables[1:], start=tables[0])))


def minimised(factors: Sequence[Factor], column: int) -> Factor:
    """Return the least sum of the factors over the levels of one of their columns, as a table over the others."""
    added = total(factors)
    axis = added.columns.index(column)
    return Factor(added.columns[:axis] + added.columns[axis + 1 :], added.table.min(axis=axis))
