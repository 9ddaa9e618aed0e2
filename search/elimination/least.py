"""Least latency: the least that a partial choice of levels can still become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from search.elimination.factor import factors_of
from search.elimination.order import elimination_order
from search.elimination.plan import Elimination, Plan
from search.errors import InvalidInput, did_you_mean
from search.terms import Terms

LIMIT_ENTRIES = 1 << 20
_PLANS = 2048  # plans kept; a search asks for the same knobs in the same order again and again


class Least:
    """The least latency over all completions of a partial assignment of levels.

        least = Least(problem.terms["latency_ms@dev_1"])
        least.at({"conv1": 3})                    0.41   the least latency of a network whose conv1 has level 3
        least.by_level({"conv1": 3}, "conv2")     [0.41, 0.41, 0.43, ...]   the same for each level of conv2
        least.completion({"conv1": 3})            {"conv1": 3, "conv2": 1, ...}   a network that attains it

    It is exact for any tables, whether or not they grow with the levels, and for a scale below zero, up to rounding.
    `exact` is False if a table of the elimination would have more than `limit_entries` entries: `at` and `by_level`
    then return lower bounds (mini-buckets), which are attained at the latest once all knobs are fixed.
    `level_counts` has the number of levels of each knob of the terms. It is only needed for a knob that no table has.
    """

    def __init__(
        self, terms: Terms, level_counts: Sequence[int] | None = None, limit_entries: int = LIMIT_ENTRIES
    ) -> None:
        if limit_entries < 1:
            raise InvalidInput("limit_entries", limit_entries, "must be at least 1")
        self._columns = {name: column for column, name in enumerate(terms.knobs)}
        self._sizes = _sizes(terms, level_counts)
        self._constant_ms = terms.offset_ms + terms.scale * terms.fixed_ms
        factors = tuple(factors_of(terms))
        sizes = dict(enumerate(self._sizes))
        self.order = elimination_order((factor.columns for factor in factors), sizes)
        elimination = Elimination(factors, self.order, self._sizes, limit_entries)
        self._plan = lru_cache(_PLANS)(lambda fixed, asked: Plan(elimination, fixed, asked))
        self.exact: bool = self._plan(frozenset(), None).exact

    def at(self, fixed: Mapping[str, int]) -> float:
        """Return the least latency in milliseconds of all assignments with these levels.

        Raises: InvalidInput for an unknown knob or level.
        """
        levels = self._levels(fixed)
        return self._constant_ms + float(np.sum(self._plan(frozenset(levels), None).least(self._index(levels))))

    def by_level(self, fixed: Mapping[str, int], knob: str) -> NDArray[np.float64]:
        """Return the least latencies (levels,) in milliseconds, one for each level of a knob that is not fixed.

        Raises: InvalidInput for an unknown knob or level, and for a knob that is fixed.
        """
        levels, asked = self._levels(fixed), self._column(knob)
        if asked in levels:
            raise InvalidInput("knob", knob, "is fixed, so its level is not open")
        if not self._sizes[asked]:
            raise InvalidInput("knob", knob, "is in no table, so level_counts must be given")
        found = self._plan(frozenset(levels), asked).least(self._index(levels))
        return np.full(self._sizes[asked], self._constant_ms) + found

    def completion(self, fixed: Mapping[str, int]) -> dict[str, int]:
        """Return the levels of every knob: those fixed, and levels of the others with the least latency.

        If `exact` is False, a lower latency may exist. Raises: InvalidInput for an unknown knob or level.
        """
        names = tuple(self._columns)
        found = {names[column]: level for column, level in self._levels(fixed).items()}
        for name in (names[column] for column in reversed(self.order)):
            if name not in found:
                found[name] = int(np.argmin(self.by_level(found, name)))
        return {name: found.get(name, 0) for name in names}

    def _column(self, knob: str) -> int:
        if knob not in self._columns:
            raise InvalidInput("knob", knob, f"no such knob; {did_you_mean(knob, self._columns)}")
        return self._columns[knob]

    def _levels(self, fixed: Mapping[str, int]) -> dict[int, int]:
        """Return the fixed levels by column, checked."""
        levels = {self._column(name): int(level) for name, level in fixed.items()}
        for column, level in levels.items():
            size = self._sizes[column]
            if level < 0 or (size and level >= size):
                raise InvalidInput(tuple(self._columns)[column], level, f"level must be in [0, {size - 1}]")
        return levels

    def _index(self, levels: Mapping[int, int]) -> list[int | slice]:
        at: list[int | slice] = [slice(None)] * len(self._sizes)
        for column, level in levels.items():
            at[column] = level
        return at


def _sizes(terms: Terms, level_counts: Sequence[int] | None) -> tuple[int, ...]:
    """Return the number of levels of each knob; 0 if it is not known."""
    if level_counts is not None and len(level_counts) != len(terms.knobs):
        raise InvalidInput("level_counts", tuple(level_counts), f"must be {len(terms.knobs)} counts, one per knob")
    in_tables = {n: s for term in terms.terms for n, s in zip(term.knobs, term.table_ms.shape, strict=True)}
    given = in_tables if level_counts is None else dict(zip(terms.knobs, level_counts, strict=True))
    for name, size in in_tables.items():
        if given[name] != size:
            raise InvalidInput("level_counts", given[name], f"{name} has {size} levels in its tables")
    return tuple(given.get(name, 0) for name in terms.knobs)
