"""Enumeration: all masks of a size, if there are few enough; the best of them is optimal by construction."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, islice

import numpy as np
from numpy.typing import NDArray

from search.channel_masks.fitness import Gram, Masks, Vector

_CHUNK = 8192


def enumerated(gram: Gram, keep: int, few: int) -> Masks:
    """Return the `few` masks (n, c) with the least `lost` among all masks that keep `keep` units, the best first.

    The smaller of the removed and the kept units are enumerated; a million masks take a second.
    """
    width = len(gram)
    removed = keep > width - keep
    best, errors = np.empty((0, width), dtype=bool), np.empty(0)
    for subsets in _subsets(width, min(keep, width - keep)):
        found = _lost(gram, subsets, removed)
        top = np.argsort(found, kind="stable")[:few]
        best, errors = np.concatenate([best, _masks(subsets[top], width, removed)]), np.append(errors, found[top])
        order = np.argsort(errors, kind="stable")[:few]
        best, errors = best[order], errors[order]
    return best


def _subsets(width: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Yield all subsets of `size` units in chunks (n, size)."""
    subsets = combinations(range(width), size)
    while chunk := list(islice(subsets, _CHUNK)):
        yield np.fromiter(chain.from_iterable(chunk), np.int64, len(chunk) * size).reshape(len(chunk), size)


def _lost(gram: Gram, subsets: NDArray[np.int64], removed: bool) -> Vector:
    """Return p'Gp (n,), given the removed units of each mask or else the kept units."""
    inner = np.asarray(gram[subsets[:, :, None], subsets[:, None, :]].sum(axis=(1, 2)))
    if removed:
        return inner
    return np.asarray(gram.sum() - 2.0 * gram.sum(axis=1)[subsets].sum(axis=1) + inner)


def _masks(subsets: NDArray[np.int64], width: int, removed: bool) -> Masks:
    gone = np.full((len(subsets), width), not removed)
    np.put_along_axis(gone, subsets, removed, axis=1)
    return gone
