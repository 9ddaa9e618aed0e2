"""Points: for each assignment of a few columns, the non-dominated pairs (loss, latency) that other columns can reach.

A point dominates another if it has at most the same latency and at most the same loss. Each point carries the levels by
which it is attained, so every point that is kept is the point of a real choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.elimination.factor import Factor, union

_CHUNK = 1 << 21  # sums sorted at once, to bound the memory


@dataclass(frozen=True, eq=False)
class Points:
    """Fronts of one latency and one loss, one front for each cell: each assignment of the `columns`.

    `latency_ms` and `loss` are (cells, n), ascending in latency and descending in loss, and infinite where a front has
    fewer than n points. `levels` (cells, n, all columns) has the levels of the columns that were minimised out, and 0
    for the others. `gap` (cells,) bounds what thinning has cost: for each point that the full front has, a point with
    at most its latency and at most its loss + gap is here.
    """

    columns: tuple[int, ...]
    shape: tuple[int, ...]
    latency_ms: NDArray[np.float64]
    loss: NDArray[np.float64]
    levels: NDArray[np.uint16]
    gap: NDArray[np.float64]

    @classmethod
    def of_loss(cls, column: int, loss: NDArray[np.float64], width: int) -> Points:
        """Return the points of one column's loss, which takes no time."""
        zero = np.zeros((len(loss), 1))
        return cls((column,), loss.shape, zero, loss[:, None], _no_levels(len(loss), width), np.zeros(len(loss)))

    @property
    def ground(self) -> Factor:
        """A table of zeros over the columns."""
        return Factor(self.columns, np.zeros(self.shape))

    def price(self, per_ms: float) -> NDArray[np.float64]:
        """Return the loss plus the latency at a price per millisecond (cells, n)."""
        return self.loss + per_ms * np.where(np.isfinite(self.loss), self.latency_ms, 0.0)

    def priced(self, per_ms: float) -> Factor:
        """Return a lower bound on the price of each cell, as a table over the columns."""
        return Factor(self.columns, (self.price(per_ms).min(axis=1) - self.gap).reshape(self.shape))

    def only(self, wanted: NDArray[np.bool_]) -> Points:
        """Return the wanted points (cells, n) alone."""
        wanted = wanted & np.isfinite(self.loss)
        n = max(int(wanted.sum(axis=1).max()), 1)
        order = np.argsort(~wanted, axis=1, kind="stable")[:, :n]
        cells, left = np.arange(len(order))[:, None], np.take_along_axis(wanted, order, axis=1)
        latency_ms = np.where(left, self.latency_ms[cells, order], np.inf)
        loss = np.where(left, self.loss[cells, order], np.inf)
        return Points(self.columns, self.shape, latency_ms, loss, self.levels[cells, order], self.gap)

    def spread(self, sizes: Sequence[int], columns: tuple[int, ...]) -> Points:
        """Return the same points for each assignment of more columns."""
        shape = tuple(sizes[column] for column in columns)
        own = tuple(sizes[column] if column in self.columns else 1 for column in columns)
        cells = np.broadcast_to(np.arange(len(self.gap)).reshape(own), shape).ravel()
        return Points(columns, shape, self.latency_ms[cells], self.loss[cells], self.levels[cells], self.gap[cells])

    def delayed(self, table: Factor, sizes: Sequence[int]) -> Points:
        """Return the points with a table's latency added, over the columns of both."""
        columns = union((self.columns, table.columns))
        spread = self.spread(sizes, columns)
        own = tuple(sizes[column] if column in table.columns else 1 for column in columns)
        added_ms = np.broadcast_to(table.table.reshape(own), spread.shape).reshape(-1, 1)
        return Points(columns, spread.shape, spread.latency_ms + added_ms, spread.loss, spread.levels, spread.gap)

    def plus(self, other: Points, sizes: Sequence[int], most: int) -> Points:
        """Return the non-dominated sums of a point of each, over the columns of both."""
        columns = union((self.columns, other.columns))
        a, b = self.spread(sizes, columns), other.spread(sizes, columns)
        parts = [
            _front(
                (a.latency_ms[some][:, :, None] + b.latency_ms[some][:, None]).reshape(_count(some), -1),
                (a.loss[some][:, :, None] + b.loss[some][:, None]).reshape(_count(some), -1),
                most,
            )
            for some in _chunks(len(a.gap), a.loss.shape[1] * b.loss.shape[1])
        ]
        kept = _joined(parts)
        cells = np.arange(len(a.gap))[:, None]
        first, second = np.divmod(kept.source, b.loss.shape[1])
        levels = a.levels[cells, first] + b.levels[cells, second]
        return Points(columns, a.shape, kept.latency_ms, kept.loss, levels, a.gap + b.gap + kept.gap)

    def without(self, column: int, most: int) -> Points:
        """Return the non-dominated points over all levels of one of the columns."""
        axis = self.columns.index(column)
        rest = self.columns[:axis] + self.columns[axis + 1 :]
        shape = self.shape[:axis] + self.shape[axis + 1 :]
        count, n = self.shape[axis], self.loss.shape[1]
        cells = np.moveaxis(np.arange(len(self.gap)).reshape(self.shape), axis, -1).reshape(-1, count)
        kept = _joined(
            [
                _front(
                    self.latency_ms[cells[some]].reshape(_count(some), -1),
                    self.loss[cells[some]].reshape(_count(some), -1),
                    most,
                )
                for some in _chunks(len(cells), count * n)
            ]
        )
        level, point = np.divmod(kept.source, n)
        levels = self.levels[np.take_along_axis(cells, level, axis=1), point]
        levels[..., column] = level
        gap = self.gap[cells].max(axis=1) + kept.gap
        return Points(rest, shape, kept.latency_ms, kept.loss, levels, gap)


def _no_levels(cells: int, width: int) -> NDArray[np.uint16]:
    return np.zeros((cells, 1, width), dtype=np.uint16)


def _count(some: slice) -> int:
    return int(some.stop - some.start)


def _chunks(cells: int, entries: int) -> Iterator[slice]:
    step = max(1, _CHUNK // max(entries, 1))
    for start in range(0, cells, step):
        yield slice(start, min(start + step, cells))


@dataclass(frozen=True, eq=False)
class Kept:
    """The front of each row of a table: values, the entries of the row that they come from, and what thinning costs."""

    latency_ms: NDArray[np.float64]
    loss: NDArray[np.float64]
    source: NDArray[np.int64]
    gap: NDArray[np.float64]


def _front(latency_ms: NDArray[np.float64], loss: NDArray[np.float64], most: int) -> Kept:
    """Return the non-dominated entries of each row, at most `most` of them."""
    order = np.argsort(latency_ms, axis=1, kind="stable")
    latency_ms, loss = np.take_along_axis(latency_ms, order, axis=1), np.take_along_axis(loss, order, axis=1)
    before = np.minimum.accumulate(loss, axis=1)
    kept = np.isfinite(loss)
    kept[:, 1:] &= loss[:, 1:] < before[:, :-1]
    kept[:, :-1] &= (latency_ms[:, 1:] > latency_ms[:, :-1]) | ~kept[:, 1:]
    kept, gap = _thinned(loss, kept, most)
    place = np.where(kept, np.cumsum(kept, axis=1) - 1, -1)
    rows, entries = np.nonzero(kept)
    shape = len(loss), int(kept.sum(axis=1).max(initial=1))
    found = Kept(np.full(shape, np.inf), np.full(shape, np.inf), np.zeros(shape, dtype=np.int64), gap)
    at = rows, place[rows, entries]
    found.latency_ms[at], found.loss[at], found.source[at] = latency_ms[kept], loss[kept], order[kept]
    return found


def _thinned(
    loss: NDArray[np.float64], kept: NDArray[np.bool_], most: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which points of each row remain, at most `most`, and the largest loss (rows,) that this can add.

    The losses of a row that has too many points are divided into equal bins, and the fastest point of each bin remains.
    The point with the least loss has a bin of its own.
    """
    gap = np.zeros(len(loss))
    crowded = np.flatnonzero(kept.sum(axis=1) > most)
    for row in crowded:
        entries = np.flatnonzero(kept[row])
        own = loss[row, entries]
        bins = np.ceil((own - own[-1]) / (own[0] - own[-1]) * (most - 1))
        starts = np.flatnonzero(np.append(True, np.diff(bins) != 0.0))
        kept[row] = False
        kept[row, entries[starts]] = True
        gap[row] = (own[starts] - own[np.append(starts[1:], len(own)) - 1]).max()
    return kept, gap


def _joined(parts: Sequence[Kept]) -> Kept:
    """Return the rows of all parts, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    n = max(part.loss.shape[1] for part in parts)

    def padded(arrays: Sequence[NDArray[np.float64]], fill: float) -> NDArray[np.float64]:
        return np.concatenate([np.pad(a, ((0, 0), (0, n - a.shape[1])), constant_values=fill) for a in arrays])

    return Kept(
        padded([part.latency_ms for part in parts], np.inf),
        padded([part.loss for part in parts], np.inf),
        padded([part.source for part in parts], 0).astype(np.int64),  # type: ignore[misc]  # whole numbers, below 2**53
        np.concatenate([part.gap for part in parts]),
    )
