"""Mini-buckets (Dechter and Rish 2003): tables that would be too large together are minimised apart.

The sum of separate minima is at most the minimum of the sum, so the result is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import TypeVar

T = TypeVar("T")


def mini_buckets(
    items: Sequence[T], scope: Callable[[T], Iterable[int]], sizes: Sequence[int], limit_entries: int
) -> list[list[T]]:
    """Return the items in groups, such that the joint table of each group has at most `limit_entries` entries.

    A single item may be larger, because its table exists already. The largest items choose their groups first.
    """
    groups: list[tuple[set[int], list[T]]] = []
    for item in sorted(items, key=lambda item: -_entries(scope(item), sizes)):
        columns = set(scope(item))
        for held, members in groups:
            if _entries(held | columns, sizes) <= limit_entries or columns <= held:
                held |= columns
                members.append(item)
                break
        else:
            groups.append((columns, [item]))
    return [members for _, members in groups]


def _entries(columns: Iterable[int], sizes: Sequence[int]) -> int:
    return prod(sizes[column] for column in columns)
