"""MaskSearch: the choice of a block's channels in two steps, for any number of channels to keep.

Step one finds the masks with the least `lost`: all masks are compared if there are few enough, otherwise they evolve.
Step two takes, of the few best, the mask with the least `refitted` (search.channel_masks.fitness).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import comb

import numpy as np

from search.channel_masks.baselines import eliminated, least_important
from search.channel_masks.enumeration import enumerated
from search.channel_masks.evolution import Evolution, evolved
from search.channel_masks.fitness import Gram, Masks, Vector, lost, refitted
from search.errors import InvalidInput

ENUMERATED = 1_000_000
"""The most masks that are all compared, which takes a tenth of a second if there are few channels."""


@dataclass(frozen=True)
class ChosenMask:
    """The kept units, ascending, and both errors of the mask. `optimal` is True if no mask of this size has a smaller
    `lost`, which is known only if all masks were compared.
    """

    kept: tuple[int, ...]
    lost: float
    refitted: float
    optimal: bool


@dataclass(frozen=True, eq=False)
class MaskSearch:
    """Search over the masks of one block; it computes each number of kept units once.

    Attributes:
        gram: (c, c), see `Problem.statistics`.
        importance: (c,) scores, whose highest units are a baseline.
        few: number of masks that step two compares; 1 leaves step two out.
    """

    gram: Gram
    importance: Vector
    seed: int = 0
    few: int = 8
    evolution: Evolution = field(default_factory=Evolution)
    enumerated: int = ENUMERATED
    _found: dict[int, ChosenMask] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.gram.ndim != 2 or self.gram.shape != (len(self.importance),) * 2 or not self.gram.size:
            raise InvalidInput("gram", self.gram.shape, f"must have shape ({len(self.importance)},) * 2, not empty")
        if not (np.isfinite(self.gram).all() and np.isfinite(self.importance).all()):
            raise InvalidInput("gram", self.gram.shape, "Gram matrix and importance must be finite")
        if self.few < 1:
            raise InvalidInput("few", self.few, "must be at least 1")

    def best(self, keep: int) -> ChosenMask:
        """Return the mask for this number of kept units.

        It loses no more than the most important units and than greedy backward elimination. Equal seeds give equal
        masks, in any order of calls.
        """
        if not 1 <= keep <= len(self.gram):
            raise InvalidInput("keep", keep, f"must be a whole number in [1, {len(self.gram)}]")
        if keep not in self._found:
            self._found[keep] = self._searched(keep)
        return self._found[keep]

    def _searched(self, keep: int) -> ChosenMask:
        optimal = comb(len(self.gram), keep) <= self.enumerated
        masks = self._finalists(enumerated(self.gram, keep, self.few) if optimal else self._evolved(keep), keep)
        errors = lost(self.gram, masks)
        again = refitted(self.gram, masks)
        at = int(np.argmin(again))
        kept = tuple(np.flatnonzero(~masks[at]).tolist())
        return ChosenMask(kept, float(errors[at]), float(again[at]), optimal and bool(errors[at] <= errors[0]))

    def _evolved(self, keep: int) -> Masks:
        rank = np.random.default_rng([self.seed, keep]).integers(2**31)
        return evolved(self.gram, self.importance, keep, self.few, self.evolution, int(rank))

    def _finalists(self, masks: Masks, keep: int) -> Masks:
        """Return the masks, the best first, that lose no more than either baseline."""
        baselines = np.stack([least_important(self.importance, keep), eliminated(self.gram, keep)])
        bound = max(lost(self.gram, baselines).min(), lost(self.gram, masks[:1])[0])
        return np.asarray(masks[lost(self.gram, masks) <= bound])
