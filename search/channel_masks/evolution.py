"""Evolution: the genetic search over masks of one size (Hu et al., arXiv 1805.11394).

The paper's constants are not known; those here are common ones. Two additions make it stronger than the baselines:
they are in the first population, and the best individual climbs by swaps whenever it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from search.channel_masks.baselines import eliminated, least_important, swapped
from search.channel_masks.fitness import Gram, Masks, Vector, lost, marginal
from search.space.settings import Bounds, Doc


@dataclass(frozen=True)
class Evolution:
    """Settings of the genetic search over masks."""

    population: Annotated[int, Doc("masks in a generation"), Bounds(8, 4096)] = 64
    generations: Annotated[int, Doc("maximum number of generations"), Bounds(1, 10_000)] = 100
    patience: Annotated[int, Doc("generations without a gain after which the search ends"), Bounds(1, 10_000)] = 20
    tournament: Annotated[int, Doc("masks drawn for a tournament, whose best becomes a parent"), Bounds(1, 64)] = 3
    crossover: Annotated[float, Doc("probability that a mask has two parents"), Bounds(0.0, 1.0)] = 0.8
    swaps: Annotated[float, Doc("expected number of swapped pairs of units in a mutation"), Bounds(0.0, 16.0)] = 1.5


def evolved(gram: Gram, importance: Vector, keep: int, few: int, settings: Evolution, seed: int) -> Masks:
    """Return the `few` best distinct masks (n, c) that keep `keep` units, the best first; none is lost once found."""
    rng = np.random.default_rng(seed)
    everyone = _ranked(gram, _first(gram, importance, keep, settings, rng))
    stale = 0
    for _ in range(settings.generations):
        if stale == settings.patience:
            break
        before = everyone[0]
        children = _children(gram, everyone[: settings.population], keep, settings, rng)
        everyone = _ranked(gram, np.concatenate([everyone[: max(few, settings.population)], children]))
        if lost(gram, before[None])[0] <= lost(gram, everyone[:1])[0]:
            stale += 1
        else:
            stale = 0
            everyone = _ranked(gram, np.concatenate([everyone, swapped(gram, everyone[0])[None]]))
    return everyone[:few]


def _ranked(gram: Gram, masks: Masks) -> Masks:
    """Return the distinct masks, the best first."""
    distinct = np.unique(masks, axis=0)
    return np.asarray(distinct[np.argsort(lost(gram, distinct), kind="stable")])


def _first(gram: Gram, importance: Vector, keep: int, settings: Evolution, rng: np.random.Generator) -> Masks:
    """Return the baselines, with and without swaps, and random masks: Bernoulli bits, repaired."""
    baselines = [least_important(importance, keep), eliminated(gram, keep)]
    known = np.stack([*baselines, *(swapped(gram, each) for each in baselines)])
    drawn = rng.random((settings.population, len(gram))) >= keep / len(gram)
    return np.concatenate([known, repaired(gram, drawn, keep)])


def _children(gram: Gram, parents: Masks, keep: int, settings: Evolution, rng: np.random.Generator) -> Masks:
    count = settings.population
    # The parents are ranked, so the first of those drawn wins the tournament.
    mothers, fathers = (
        parents[rng.integers(len(parents), size=(count, settings.tournament)).min(axis=1)] for _ in "mf"
    )
    mixes = (rng.random(count) < settings.crossover)[:, None] & (rng.random(mothers.shape) < 0.5)
    children = repaired(gram, np.where(mixes, fathers, mothers), keep)
    return _mutated(children, rng.poisson(settings.swaps, count), rng)


def _mutated(children: Masks, pairs: NDArray[np.int64], rng: np.random.Generator) -> Masks:
    """Return the children (n, c) after swaps of this many random pairs (n,) of a removed and a kept unit."""
    found = children.copy()
    pairs = np.minimum(pairs, np.minimum(found.sum(axis=1), (~found).sum(axis=1)))
    for number in range(int(pairs.max())):
        rows = np.flatnonzero(pairs > number)
        draws = rng.random((len(rows), found.shape[1]))
        gone = found[rows]
        found[rows, np.argmax(np.where(gone, -1.0, draws), axis=1)] = True
        found[rows, np.argmax(np.where(gone, draws, -1.0), axis=1)] = False
    return found


def repaired(gram: Gram, gone: Masks, keep: int) -> Masks:
    """Return the masks (n, c) made to keep exactly `keep` units.

    Units go or come back one at a time: those whose removal costs the least, or whose return saves the most.
    """
    found, wanted = gone.copy(), gone.shape[1] - keep
    while len(wrong := np.flatnonzero(found.sum(axis=1) != wanted)):
        part = found[wrong]
        few = part.sum(axis=1) < wanted
        change = marginal(gram, part)
        costs = np.where(few[:, None], np.where(part, np.inf, change), np.where(part, -change, np.inf))
        found[wrong, np.argmin(costs, axis=1)] = few
    return found
