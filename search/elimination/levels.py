"""Levels worth having: the non-dominated points of a knob's own measured curve.

A device's latency is a staircase in a width, and not even a monotone one. Only the widest width of each step is worth
having, and a width that takes longer than a wider one is not. This is exact: a level is left out only if another level
of its knob loses no more and, whatever the other knobs are, takes no longer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search.terms import Term, Terms


def kept_levels(latencies: Sequence[Terms], losses: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.int64]]:
    """Return the levels of each knob that no other level beats in all of these latencies and in its loss.

    Leaving out the levels of one knob may show that levels of another are beaten, so this repeats until none is.
    """
    kept = {name: np.arange(len(loss)) for name, loss in losses.items()}
    while True:
        left = [restricted(terms, kept) for terms in latencies]
        fewer = {name: levels[_unbeaten(name, losses[name][levels], left)] for name, levels in kept.items()}
        if all(len(fewer[name]) == len(kept[name]) for name in kept):
            return kept
        kept = fewer


def restricted(terms: Terms, levels: Mapping[str, NDArray[np.int64]]) -> Terms:
    """Return the terms of a space in which each knob only has these levels, renumbered from 0."""
    tables = tuple(Term(t.knobs, t.table_ms[np.ix_(*(levels[name] for name in t.knobs))]) for t in terms.terms)
    return Terms(terms.knobs, terms.offset_ms, terms.scale, tables, terms.fixed_ms)


def _unbeaten(name: str, loss: NDArray[np.float64], latencies: Sequence[Terms]) -> NDArray[np.bool_]:
    """Return for each level of the knob whether no other level beats it; of equal levels, the first stays."""
    count = len(loss)
    no_worse = loss[:, None] <= loss  # [b, a]: b loses no more than a
    for terms in latencies:
        no_worse &= _longest(name, terms, count) <= 0.0
    first = np.arange(count)[:, None] < np.arange(count)
    return np.asarray(~(no_worse & (~no_worse.T | first)).any(axis=0))


def _longest(name: str, terms: Terms, count: int) -> NDArray[np.float64]:
    """Return by how much level b can take longer than level a at most (b, a), whatever the levels of other knobs.

    Each table is taken at its own worst, which can only keep levels that could be left out.
    """
    most = np.zeros((count, count))
    for term in terms.terms:
        if name in term.knobs:
            table = terms.scale * np.moveaxis(term.table_ms, term.knobs.index(name), 0).reshape(count, -1)
            most += (table[:, None] - table[None]).max(axis=2)
    return most
