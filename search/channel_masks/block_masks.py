"""BlockMasks: the masks of candidates, and statistics that expect them.

A knob has masks if it is a width and the problem has the Gram matrix of its block. Of other blocks, the method keeps
the most important units. So it does, by default, of residual streams: the error in the layers that read a stream says
little about its use further on. A stream is known by its many readers, whose shares of lost outputs add up to more
than 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from search.channel_masks.baselines import eliminated_first, least_important_first
from search.channel_masks.choice import MaskSearch
from search.channel_masks.evolution import Evolution
from search.channel_masks.fitness import Gram, Vector, lost_in_order
from search.problem import Problem, Statistics
from search.space import Levelled, Values

_REFITTED = "ls_error"
_MEASURED = "sensitivity"
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class BlockMasks:
    """The mask searches of a problem's blocks, by knob. Each width of a block is searched once, when it is needed."""

    problem: Problem
    searches: Mapping[str, MaskSearch] = field(repr=False)

    @classmethod
    def of(cls, problem: Problem, settings: Evolution, seed: int, streams: bool = False) -> BlockMasks:
        """Make the searches of every knob that can have masks; those of residual streams only if `streams` is True."""
        found = {}
        for knob in problem.space.levelled:
            gram = problem.statistics.get("gram", {}).get(knob.name)
            if gram is not None and _fits(knob, gram) and (streams or gram.sum() <= 1.0 + _ROUNDING):
                scores = _importance(problem, knob.name, gram)
                found[knob.name] = MaskSearch(gram, scores, _seed(knob.name, seed), evolution=settings)
        return cls(problem, found)

    def narrows(self, values: Values) -> bool:
        """Return whether candidates with these values have masks."""
        return any(values[name] != len(search.gram) for name, search in self.searches.items())

    def masks(self, values: Values) -> dict[str, tuple[int, ...]]:
        """Return block -> kept units, for the blocks that these values narrow."""
        widths = {name: int(values[name]) for name in self.searches}  # type: ignore[arg-type]  # a width is a number
        return {
            name: search.best(widths[name]).kept
            for name, search in self.searches.items()
            if widths[name] < len(search.gram)
        }

    @property
    def statistics(self) -> Statistics:
        """The problem's statistics as they would be with masks instead of the most important units.

        Losses shrink as `lost` does between the two choices. The masks are those of greedy elimination, which yields
        all widths at once.
        """
        relief = {name: self._relief(name) for name in self.searches}
        changed = {
            kind: {
                name: _relieved(array, relief.get(name, np.ones(1)), kind)
                for name, array in self.problem.statistics[kind].items()
            }
            for kind in (_REFITTED, _MEASURED)
            if kind in self.problem.statistics
        }
        return {**self.problem.statistics, **changed}

    def _relief(self, name: str) -> Vector:
        """Return (levels,), the share of the loss that is left with masks; 1 if nothing is removed."""
        search, knob = self.searches[name], next(k for k in self.problem.space.levelled if k.name == name)
        ours = lost_in_order(search.gram, eliminated_first(search.gram))
        theirs = lost_in_order(search.gram, least_important_first(search.importance))
        share = np.clip(ours / np.maximum(theirs, np.finfo(float).tiny), 0.0, 1.0)
        removed = len(search.gram) - np.array([int(knob.value(level)) for level in range(knob.level_count)])
        return np.asarray(np.where(removed > 0, share[removed], 1.0))


def _fits(knob: Levelled, gram: Gram) -> bool:
    """Return whether the knob is a width of the block of this matrix."""
    values = [knob.value(level) for level in range(knob.level_count)]
    whole = all(type(value) is int and value >= 1 for value in values)
    return knob.role == "width" and knob.ordered and whole and gram.shape == (knob.whole, knob.whole)


def _importance(problem: Problem, name: str, gram: Gram) -> Vector:
    found = problem.statistics.get("importance", {}).get(name)
    return np.asarray(np.diag(gram) if found is None or found.shape != (len(gram),) else found)


def _seed(name: str, seed: int) -> int:
    return int(np.random.default_rng([seed, zlib.crc32(name.encode())]).integers(2**31))


def _relieved(array: Vector, relief: Vector, kind: str) -> Vector:
    """Return errors that shrink, or scores whose distance from the whole network's score shrinks."""
    if relief.shape not in (array.shape, (1,)):
        return array
    return array * relief if kind == _REFITTED else array[-1] + (array - array[-1]) * relief
