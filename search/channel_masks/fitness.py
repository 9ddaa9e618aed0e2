"""Fitness: the two errors of a mask, both from the Gram matrix G of a block's units alone.

Let v_c be the contribution of unit c to the outputs of the layers that read the block, about its mean, so that
G_cd = E<v_c, v_d> as a share of these outputs' variance (see `Problem.statistics`). A mask is a row p of booleans,
true for the *removed* units P; K are the kept ones.

- `lost` is E|sum of removed v_c|^2 = p'Gp: the error if only the readers' intercepts are refitted. It is the fitness of
  Hu et al. (arXiv 1805.11394); as a quadratic form it is exact, because outputs are linear in the contributions. One
  matrix product gives it for a whole population: the diagonal of P G P'.
- `refitted` is the least E|sum of removed v_c - sum of kept a_d v_d|^2 over one number a_d per kept unit, the same for
  all taps, outputs and readers: the Schur complement 1'(G_PP - G_PK G_KK^-1 G_KP)1. An evaluation's refit has a number
  per kept unit, tap and output, so its error, which would need the moments of every reader, is at most `refitted`, and
  that is at most `lost`. Near the optimum, `refitted` ranks masks more like that error: on ResNet-20, Kendall's tau was
  higher than that of `lost` for 20 of 24 pairs of a layer and a width, and lower for 2.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Gram: TypeAlias = NDArray[np.float64]
"""(c, c), symmetric and positive semi-definite."""
Masks: TypeAlias = NDArray[np.bool_]
"""(n, c), true for the removed units."""
Vector: TypeAlias = NDArray[np.float64]

_CHUNK = 4096  # masks; the product of a chunk stays in the cache
_RIDGE = 1e-9  # relative to the mean of the diagonal: idle or equal units make G singular


def lost(gram: Gram, gone: Masks) -> Vector:
    """Return p'Gp (n,) for n masks."""
    found = np.empty(len(gone))
    for start in range(0, len(gone), _CHUNK):
        part = gone[start : start + _CHUNK].astype(np.float64)
        found[start : start + _CHUNK] = np.einsum("nc,nc->n", part @ gram, part)
    return found


def lost_in_order(gram: Gram, order: NDArray[np.int64]) -> Vector:
    """Return `lost` (c + 1,) if the first 0, 1, ... c units of the order are removed."""
    sums = np.cumsum(np.cumsum(gram[np.ix_(order, order)], axis=0), axis=1)
    return np.append(0.0, sums.diagonal())


def refitted(gram: Gram, gone: Masks) -> Vector:
    """Return the errors (n,) after the refit of one number per kept unit."""
    return np.array([_schur(gram, row) for row in gone])


def _schur(gram: Gram, gone: NDArray[np.bool_]) -> float:
    kept, removed = np.flatnonzero(~gone), np.flatnonzero(gone)
    error = float(gram[np.ix_(removed, removed)].sum())
    if not len(kept):
        return error
    shared = gram[np.ix_(kept, removed)].sum(axis=1)
    solvable = gram[np.ix_(kept, kept)] + _RIDGE * max(float(np.trace(gram)) / len(gram), _RIDGE) * np.eye(len(kept))
    return max(error - float(shared @ np.linalg.solve(solvable, shared)), 0.0)


def marginal(gram: Gram, gone: Masks) -> Vector:
    """Return (n, c): by how much `lost` grows if a kept unit is removed, or shrinks if a removed unit is put back."""
    product = 2.0 * (gone.astype(np.float64) @ gram)
    return np.asarray(np.where(gone, product - np.diag(gram), product + np.diag(gram)))
