"""Elimination order: the order in which the columns of a sum of tables are minimised out.

Eliminating a column joins all the columns that share a table with it. The greedy order takes, each time, the column
that joins the fewest pairs for the first time (min-fill); of these, the one whose joint table is the smallest
(min-weight); and of these, the one in the fewest tables, because fixed levels of its neighbours then spoil the fewest
steps. So the widths between two layers come out first, then the streams that many layers share, and last the options of
the whole network, which are in every table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import combinations
from math import prod


def elimination_order(
    scopes: Iterable[Iterable[int]], sizes: Mapping[int, int], kept: Collection[int] = ()
) -> tuple[int, ...]:
    """Return the columns of the scopes in the order of their elimination, without the columns to be kept.

    `sizes` is the number of levels of each column.
    """
    neighbours: dict[int, set[int]] = {}
    tables: Counter[int] = Counter()
    for columns in map(set, scopes):
        tables.update(columns)
        for column in columns:
            neighbours.setdefault(column, set()).update(columns - {column})
    order = []
    while left := neighbours.keys() - set(kept):
        column = min(left, key=lambda c: (_fill(c, neighbours), _weight(c, neighbours, sizes), tables[c], c))
        _eliminate(column, neighbours)
        order.append(column)
    return tuple(order)


def _fill(column: int, neighbours: Mapping[int, set[int]]) -> int:
    """Return the number of pairs of the column's neighbours that are not neighbours yet."""
    return sum(b not in neighbours[a] for a, b in combinations(neighbours[column], 2))


def _weight(column: int, neighbours: Mapping[int, set[int]], sizes: Mapping[int, int]) -> int:
    return sizes[column] * prod(sizes[other] for other in neighbours[column])


def _eliminate(column: int, neighbours: dict[int, set[int]]) -> None:
    around = neighbours.pop(column)
    for other in around:
        neighbours[other] |= around - {other}
        neighbours[other].discard(column)
