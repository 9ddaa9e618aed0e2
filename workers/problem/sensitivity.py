"""Sensitivities: the score if only one knob is turned, to each of its levels, from few quick evaluations.

A look is a quick evaluation of the network with one knob turned. It takes seconds; the layer error of a level takes
none. The score lost rises with the layer error in much the same way for all knobs. So a few looks, spread over the
range of layer errors, give a map from layer error to the score lost, and the map gives the scores of all levels. The
map is the isotonic regression (Barlow et al. 1972), because nothing but its direction is known beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from search.space import Levelled, Space

Vector = NDArray[np.float64]
Place: TypeAlias = tuple[str, int]
"""A knob's name, and the level that a look turns it to."""

PLACES = 3
"""Number of levels of an ordered knob at which a look is worth its time; without layer errors, all of them are taken.
"""
MAPPED = 16
"""Maximum number of looks for the map."""


@dataclass(frozen=True)
class Sensitivity:
    """Scores (levels,) of one knob. `looked` (levels,) is true for the levels that were evaluated; the scores of the
    others are inferred.
    """

    scores: Vector
    looked: NDArray[np.bool_]


@dataclass(frozen=True)
class Looks:
    """Chooses the looks at a space, and infers from their scores. `errors` has the (levels,) layer errors of the
    ordered knobs that have them.
    """

    space: Space
    errors: Mapping[str, Vector]

    @classmethod
    def of(cls, space: Space, errors: Mapping[str, Vector]) -> Looks:
        """Return the looks at a space; errors that are not finite, or not one for each level, are not used."""
        ordered = {knob.name: knob.level_count for knob in space.levelled if knob.ordered}
        fits = {name for name, each in errors.items() if ordered.get(name) == len(each) and np.isfinite(each).all()}
        return cls(space, {name: errors[name] for name in errors if name in fits})

    @property
    def places(self) -> tuple[Place, ...]:
        """The places to look at: at most MAPPED of knobs with layer errors, and PLACES of each other ordered knob.

        Every option of an unordered knob is looked at. The level of the original is never among the places.
        """
        places = [(knob.name, level) for knob in self.space.levelled for level in _places(knob)]
        mapped = _spread([place for place in places if place[0] in self.errors], self.errors)
        return tuple(place for place in places if place[0] not in self.errors or place in mapped)

    def sensitivities(self, whole: float, scores: Mapping[Place, float]) -> dict[str, Sensitivity]:
        """Return the sensitivity of each levelled knob.

        Args:
            whole: the score of a look at the uncut network.
            scores: the scores of the looks at all places.
        """
        lost: dict[str, dict[int, float]] = {knob.name: {knob.level(knob.whole): 0.0} for knob in self.space.levelled}
        for (name, level), score in scores.items():
            lost[name][level] = whole - score
        seen = [place for place in scores if place[0] in self.errors]
        found = LossMap.fitted([(float(self.errors[name][level]), lost[name][level]) for name, level in seen])
        worst = min([whole, *scores.values()])
        made = {}
        for knob in self.space.levelled:
            name, own = knob.name, lost[knob.name]
            losses = _by_error(self.errors[name], own, found) if name in self.errors else _by_level(knob, own)
            looked = np.isin(np.arange(knob.level_count), list(own))
            made[name] = Sensitivity(np.maximum(whole - losses, worst), looked)
        return made


@dataclass(frozen=True)
class LossMap:
    """A map from layer error to the score lost that never falls; `errors` and `losses` (n,) are its corners."""

    errors: Vector
    losses: Vector

    @classmethod
    def fitted(cls, seen: Iterable[tuple[float, float]]) -> LossMap:
        """Return the map that fits these pairs of a layer error and a loss best. No error loses nothing."""
        errors, losses = np.array([(0.0, 0.0), *sorted(seen)]).T
        rising = np.maximum(isotonic_regression(losses).x, 0.0)
        # Pairs that the regression gives one loss are one corner, at their mean error.
        corners, corner = np.unique(rising, return_inverse=True)
        return cls(np.bincount(corner, errors) / np.bincount(corner), corners)

    def at(self, errors: Vector) -> Vector:
        """Return the losses at these errors, interpolated between corners and constant beyond the last."""
        return np.asarray(np.interp(errors, np.append(0.0, self.errors), np.append(0.0, self.losses)))


def _places(knob: Levelled) -> list[int]:
    if not knob.ordered:
        return [level for level in range(knob.level_count) if level != knob.level(knob.whole)]
    spread = np.linspace(0, knob.level_count - 1, PLACES + 1).round().astype(int)
    return sorted(set(spread.tolist()) - {knob.level_count - 1})


def _spread(places: Iterable[Place], errors: Mapping[str, Vector]) -> set[Place]:
    """Return at most MAPPED places: one of each part of their order by error, from as many knobs as possible."""
    ordered = sorted(places, key=lambda place: (errors[place[0]][place[1]], place))
    found, seen = set[Place](), Counter[str]()
    for part in np.array_split(np.arange(len(ordered)), MAPPED)[::-1]:
        largest_first = [ordered[i] for i in part[::-1]]
        if largest_first:
            chosen = min(largest_first, key=lambda place: seen[place[0]])
            found.add(chosen)
            seen[chosen[0]] += 1
    return found


def _by_level(knob: Levelled, own: Mapping[int, float]) -> Vector:
    """Return (levels,) losses; those between two looks are interpolated."""
    levels = sorted(own)
    return np.asarray(np.interp(np.arange(knob.level_count), levels, [own[level] for level in levels]))


def _by_error(errors: Vector, own: Mapping[int, float], found: LossMap) -> Vector:
    """Return (levels,) losses: the map's, moved by what the knob's own looks (level -> loss) lost beyond the map.

    The move changes with the error from one look to the next: from none at the original to that of the deepest look.
    """
    losses = found.at(errors)
    levels = sorted(own, key=lambda level: errors[level])
    beyond = [own[level] - losses[level] for level in levels]
    moved: Vector = np.asarray(losses + np.interp(errors, errors[levels], beyond))
    moved[levels] = [own[level] for level in levels]
    return moved
