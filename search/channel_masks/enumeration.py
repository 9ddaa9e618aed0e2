"""Enumeration: all masks of a size, if there are few enough; the best of them is optimal by construction.

The units are split into two halves a and b. With p = (p_a, p_b), the error is E(p_a) + E(p_b) + 2 p_a' G_ab p_b, so one
matrix product per pair of sizes gives the errors of all pairs of half masks: a million masks take a few hundredths of a
second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from search.channel_masks.fitness import Gram, Masks, Vector

_ROWS, _COLUMNS = 1024, 4096  # half masks compared at once; this bounds the memory


def enumerated(gram: Gram, keep: int, few: int) -> Masks:
    """Return the `few` masks (n, c) with the least `lost` among all masks that keep `keep` units, the best first."""
    width = len(gram)
    removed = keep > width - keep
    best, errors = np.empty((0, width), dtype=bool), np.empty(0)
    for units, found in _compared(gram, min(keep, width - keep), removed):
        top = np.argpartition(found, few - 1)[:few] if len(found) > few else np.arange(len(found))
        best, errors = np.concatenate([best, units(top)]), np.append(errors, found[top])
        order = np.argsort(errors, kind="stable")[:few]
        best, errors = best[order], errors[order]
    return best if removed else ~best


@dataclass(frozen=True, eq=False)
class _Half:
    """Subsets (n, size) of the units from `start`, and the errors (n,) of the masks that have only these."""

    subsets: NDArray[np.int64]
    errors: Vector

    def part(self, start: int, count: int) -> _Half:
        return _Half(self.subsets[start : start + count], self.errors[start : start + count])

    def marked(self, width: int) -> Masks:
        found = np.zeros((len(self.subsets), width), dtype=bool)
        np.put_along_axis(found, self.subsets, True, axis=1)
        return found


@dataclass(frozen=True, eq=False)
class _Pairs:
    """All pairs of two lists of half masks, numbered row by row."""

    a: Masks
    b: Masks

    def __call__(self, numbers: NDArray[np.int64]) -> Masks:
        return np.asarray(self.a[numbers // len(self.b)] | self.b[numbers % len(self.b)])


def _compared(gram: Gram, size: int, removed: bool) -> Iterator[tuple[_Pairs, Vector]]:
    """Yield the masks of all subsets of this size, in parts, with the errors if the subsets go or, else, are kept."""
    width = len(gram)
    # With q = 1 - p for kept units, p'Gp = 1'G1 - 2 1'Gq + q'Gq.
    linear = np.zeros(width) if removed else -2.0 * gram.sum(axis=1)
    constant = 0.0 if removed else float(gram.sum())
    halves = np.arange(width // 2), np.arange(width // 2, width)
    for of_a in range(max(0, size - len(halves[1])), min(size, len(halves[0])) + 1):
        a, b = _half(gram, linear, halves[0], of_a), _half(gram, linear, halves[1], size - of_a)
        for row in range(0, len(a.errors), _ROWS):
            some = a.part(row, _ROWS)
            shared = 2.0 * gram[some.subsets].sum(axis=1)
            for column in range(0, len(b.errors), _COLUMNS):
                other = b.part(column, _COLUMNS)
                marked = other.marked(width)
                errors = constant + some.errors[:, None] + other.errors[None] + shared @ marked.T.astype(np.float64)
                yield _Pairs(some.marked(width), marked), errors.reshape(-1)


def _half(gram: Gram, linear: Vector, units: NDArray[np.int64], size: int) -> _Half:
    chosen = list(combinations(units.tolist(), size))
    subsets = np.fromiter(chain.from_iterable(chosen), np.int64, len(chosen) * size).reshape(len(chosen), size)
    errors = linear[subsets].sum(axis=1)
    for i in range(size):
        errors += gram[subsets[:, i, None], subsets].sum(axis=1)
    return _Half(subsets, errors)
