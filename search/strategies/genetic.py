"""Genetic channel search (Hu et al. 2018, arXiv 1805.11394): how many channels each layer keeps, and which.

As in the paper, the rates come from the sensitivity of the layers: each layer is cut as far as alone loses at most a
tolerated drop. Then a genetic algorithm chooses the channels of each layer by the error in the layers that read them
(search.channel_masks). The departures:
- the tolerated drop is the least with which the estimates meet the limits, so the rates obey a latency;
- these rates are only the first proposals. After them, the rates evolve too: a population of level vectors under
  crossover, mutation and repair into the limits by estimates. Its fitness is the predicted loss: F1 curves of the
  layers, expecting good masks, scaled by all F2 results so far (search.stepping.losses). Only the best of a population
  are evaluated;
- distillation between layers is a setting (`distil_between`), because every stage trains and, until the last, is over
  the limits. The stages cut to the rates by sensitivity, front to back;
- other strategies' results are parents too, whose channels are then chosen again.

Every proposal is computed from the known evaluations alone, so that a restart loses nothing.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Annotated, Literal

import numpy as np

from search.candidate import Candidate
from search.channel_masks.block_masks import BlockMasks
from search.channel_masks.evolution import Evolution
from search.channel_masks.layerwise import Layerwise
from search.evaluation import Evaluation, Status
from search.knowledge import Knowledge, values_key
from search.problem import Problem
from search.space import Values
from search.space.settings import Bounds, Doc
from search.stepping.breeding import Breeding, tolerated
from search.stepping.lattice import Lattice, Point, distinct
from search.stepping.losses import Losses
from search.stepping.repairs import Points
from search.strategy import StrategyFamily

_ORIGIN = "genetic"
_COMBINATIONS = 16  # the most combinations of options (int8) for which rates are computed


@dataclass(frozen=True)
class Settings:
    """Settings of the two searches: for widths, and for channels."""

    channels: Annotated[
        Literal["search", "importance"],
        Doc("choice of channels: by genetic search, or by importance as for other strategies, to compare"),
    ] = "search"
    streams: Annotated[
        bool, Doc("also search the channels of residual streams, instead of keeping their most important channels")
    ] = False
    population: Annotated[int, Doc("sets of widths in a generation"), Bounds(4, 1000)] = 24
    generations: Annotated[int, Doc("generations before the best are evaluated"), Bounds(1, 1000)] = 8
    curiosity: Annotated[
        float, Doc("standard deviations added to the predicted result of a set of widths"), Bounds(0.0, 5.0)
    ] = 0.5
    distil_between: Annotated[
        bool,
        Doc(
            "cut the widths by sensitivity layer by layer, with a short distillation after each; costs a training each"
        ),
    ] = False
    mask_population: Annotated[int, Doc("masks of a layer in a generation"), Bounds(8, 4096)] = 64
    mask_generations: Annotated[int, Doc("maximum number of generations of masks"), Bounds(1, 10_000)] = 100


class Genetic:
    """Strategy that knows its own results, with masks, and others' results, whose channels it did not choose.

    Raises: InvalidInput for a Subset knob.
    """

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        self._problem = problem
        self._settings = settings
        self._seed = seed
        self._lattice = Lattice(problem)
        evolution = Evolution(settings.mask_population, settings.mask_generations)
        found = BlockMasks.of(problem, evolution, seed, settings.streams)
        self._masks = found if settings.channels == "search" else BlockMasks(problem, {})
        self._losses = Losses(replace(problem, statistics=self._masks.statistics), self._lattice)
        self._known = Knowledge(problem, _ORIGIN, seed, masked=True)
        self._others = Knowledge(problem, _ORIGIN, seed)
        target = (
            self._lattice.values(self._rates[0]) if settings.distil_between and self._rates else problem.space.whole
        )
        self._layerwise = Layerwise(problem.space.whole, target, tuple(self._masks.searches), _ORIGIN)

    def ask(self, count: int) -> list[Candidate]:
        if count < 1:
            return []
        stage = self._stage()
        if len(stage) == count:
            return stage
        fresh = (point for point in self._proposals() if self._fresh(self._lattice.values(point)))
        wanted = distinct(fresh)[: count - len(stage)]
        return stage + [self._candidate(self._lattice.values(point)) for point in wanted]

    def _stages(self) -> Layerwise:
        """Return the stages from the whole network to the rates by sensitivity, front to back."""
        whole = self._problem.space.whole
        target = self._lattice.values(self._rates[0]) if self._rates else whole
        widths = [knob.name for knob in self._problem.space.knobs if knob.role == "width"]
        return Layerwise(whole, target, widths, _ORIGIN)

    def _stage(self) -> list[Candidate]:
        """Return the next stage of cutting layer by layer, if it may start now."""
        found = None if self._layerwise is None else self._layerwise.next()
        if found is None or self._layerwise is None:
            return []
        values, network = found
        self._layerwise.asked(values)
        return [replace(self._candidate(values), fidelity="F3", weights_from=network)]

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        if self._layerwise is not None:
            self._layerwise.note(evaluations, pending)
        self._known.note(evaluations, pending)
        self._others.note(evaluations, pending)

    def _candidate(self, values: Values) -> Candidate:
        return replace(self._known.candidate(values), masks=self._masks.masks(values))

    def _fresh(self, values: Values) -> bool:
        """Return whether neither this candidate nor, if it has no masks, the same one of another strategy is known."""
        return self._known.fresh(values) and (self._masks.narrows(values) or self._others.fresh(values))

    def _proposals(self) -> Iterator[Point]:
        """Yield the rates by sensitivity, then the points of a population, the most promising first.

        Raises: Infeasible if the estimates lead to no point within the limits.
        """
        yield from self._rates[:1]
        known = self._completed()
        losses = self._losses.fit([point for point, _ in known], [utility for _, utility in known])
        banned = self._banned()
        rng = np.random.default_rng([self._seed, self._known.asked, zlib.crc32(_ORIGIN.encode())])
        breeding = Breeding(self._lattice, losses.loss, banned, self._settings.population)
        met = breeding.bred(self._first(known), self._settings.generations, rng)
        if not len(met) and not banned:
            raise self._lattice.infeasible(min(self._corners, key=self._lattice.violation))
        predicted = losses.predict(met)
        yield from met[np.argsort(predicted.loss - self._settings.curiosity * predicted.sigma, kind="stable")]

    # The first population.

    def _first(self, known: Sequence[tuple[Point, float]]) -> Points:
        """Return the best known points, the rates, and the smallest and the whole network with all options."""
        within = [(point, utility) for point, utility in known if self._lattice.violation(point) <= 0.0]
        best = sorted(within, key=lambda item: -item[1])[: self._settings.population]
        return np.stack([*(point for point, _ in best), *self._rates, *self._corners, *self._wholes])

    @cached_property
    def _rates(self) -> list[Point]:
        """The rates by sensitivity for each combination of options, the least predicted loss first."""
        found = (tolerated(self._lattice, self._losses.loss, whole) for whole in self._wholes)
        rates = [point for point in found if point is not None]
        return sorted(rates, key=lambda point: float(self._losses.loss(point[None])[0]))

    @cached_property
    def _wholes(self) -> list[Point]:
        """The whole network with each combination of options; of too many, those of the same number."""
        lattice = self._lattice
        counts = [lattice.counts[i] for i in lattice.unordered]
        chosen: Iterator[tuple[int, ...]] = product(*(range(count) for count in counts))
        if prod(counts) > _COMBINATIONS:
            chosen = (tuple(min(i, count - 1) for count in counts) for i in range(max(counts)))
        return [_with(lattice.top, lattice.unordered, options) for options in chosen]

    @cached_property
    def _corners(self) -> list[Point]:
        """The smallest network with each combination of options."""
        return [_with(whole, self._lattice.ordered, [0] * len(self._lattice.ordered)) for whole in self._wholes]

    # Results.

    def _completed(self) -> list[tuple[Point, float]]:
        """Return all completed points with their utilities; of equal values, the result with masks counts."""
        found = {values_key(values): (values, utility) for values, utility in self._others.completed()}
        found |= {values_key(values): (values, utility) for values, utility in self._known.completed()}
        points = [(self._lattice.point(values), utility) for _, (values, utility) in sorted(found.items())]
        return [(point, utility) for point, utility in points if point is not None]

    def _banned(self) -> set[tuple[int, int]]:
        """Return the options that have failed twice and never worked."""
        worked: Counter[tuple[int, int]] = Counter()
        failed: Counter[tuple[int, int]] = Counter()
        for evaluation in (*self._known.evaluations(), *self._others.evaluations()):
            point = self._lattice.point(evaluation.candidate.values)
            if point is not None:
                ended = worked if evaluation.status is Status.COMPLETED else failed
                ended.update((i, int(point[i])) for i in self._lattice.unordered)
        return {option for option, count in failed.items() if count >= 2 and not worked[option]}


def _with(point: Point, knobs: Sequence[int], rungs: Sequence[int]) -> Point:
    found = point.copy()
    found[list(knobs)] = rungs
    return found


STRATEGY = StrategyFamily(
    name="genetic",
    summary="Evolves the widths, and for each layer which channels stay, by the error in the layers that read them.",
    source="Hu et al. 2018, A novel channel pruning method for deep neural network compression (arXiv 1805.11394)",
    settings=Settings,
    make=Genetic,
)
