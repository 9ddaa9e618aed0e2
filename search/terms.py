"""Latency as arrays: a + b * (fixed + sum of tables). Each table is indexed by the few knobs on which its block
depends.

Bounds, knapsacks, greedy steps and per-layer shares are computed from these arrays, without calling a predictor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.errors import InvalidInput, did_you_mean


@dataclass(frozen=True, eq=False)
class Term:
    """The latency of one block: `table_ms[level of knobs[0], level of knobs[1], ...]`."""

    knobs: tuple[str, ...]
    table_ms: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.knobs or len(set(self.knobs)) < len(self.knobs):
            raise InvalidInput(
                "term.knobs",
                self.knobs,
                "a term needs distinct knobs; time without a knob belongs in fixed_ms",
            )
        if self.table_ms.ndim != len(self.knobs) or not self.table_ms.size:
            raise InvalidInput("term.table_ms", self.table_ms.shape, f"needs one axis for each of {self.knobs}")
        if not np.isfinite(self.table_ms).all():
            raise InvalidInput("term.table_ms", self.knobs, "every entry must be finite")


@dataclass(frozen=True, eq=False)
class Terms:
    """A latency as latency_ms = offset_ms + scale * (fixed_ms + sum over terms of table_ms[levels]).

    `knobs` are the names of the space's levelled knobs, in the space's order: the columns of the level arrays. A
    density (a Float) changes no kernel, so it is not an axis of any table.
    """

    knobs: tuple[str, ...]
    offset_ms: float
    scale: float
    terms: tuple[Term, ...]
    fixed_ms: float = 0.0

    def __post_init__(self) -> None:
        for name in (name for term in self.terms for name in term.knobs):
            if name not in self.knobs:
                raise InvalidInput("term.knobs", name, f"no such knob; {did_you_mean(name, self.knobs)}")
        sizes: dict[str, int] = {}
        for term in self.terms:
            for name, size in zip(term.knobs, term.table_ms.shape, strict=True):
                if sizes.setdefault(name, size) != size:
                    raise InvalidInput("term.table_ms", name, f"has {sizes[name]} levels here and {size} there")

    @cached_property
    def _gathers(self) -> tuple[tuple[tuple[int, ...], NDArray[np.float64]], ...]:
        """One summed table for each distinct set of columns, so that blocks with the same knobs need one lookup."""
        merged: dict[tuple[int, ...], NDArray[np.float64]] = {}
        for term in self.terms:
            columns = tuple(self.knobs.index(name) for name in term.knobs)
            merged[columns] = merged[columns] + term.table_ms if columns in merged else term.table_ms
        return tuple(merged.items())

    def latency_ms(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the latency (n,) in milliseconds at (n, d) levels."""
        if levels.ndim != 2 or levels.shape[1] != len(self.knobs):
            raise InvalidInput("levels", levels.shape, f"must have shape (n, {len(self.knobs)})")
        columns = levels.T
        total = np.full(len(levels), self.fixed_ms)
        for chosen, table in self._gathers:
            total += table[tuple(columns[i] for i in chosen)]
        return np.asarray(self.offset_ms + self.scale * total)
