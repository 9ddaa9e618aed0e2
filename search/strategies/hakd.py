"""Hardware-aware knowledge distillation (Turner et al. 2018, arXiv 1810.10460): students designed from a device's own
measurements, then trained from the original as their teacher.

1. Widths: a layer's time is a staircase in its width, and not always a monotone one. Only the widths that no other
   width of the knob beats on the measured tables are considered.
2. Saliency: a student loses the summed Fisher scores of the units that it lacks.
3. Student: the least loss within the limit. The paper trades saliency against time by a simple rule; here the student
   is exact (a knapsack over the latency terms, by variable elimination), and one table gives students of any budget.
   With several limits, see `search.students.students`.
4. Ranking: students of other saliencies, of equal latency, and students just within the limit are compared by their
   score (F2), and the best again after a short distillation (F3). Distillation with attention transfer is a setting of
   the training recipe.

One addition: the rest of the budget corrects the saliencies by the scores of all evaluations so far, whichever strategy
asked for them. Each further student is the exact one for the corrected losses, or for losses drawn from what is still
uncertain about them (Thompson sampling).

Block substitutions are not made up here: a knob of rank or an option of the space takes part like a width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from typing import Annotated

import numpy as np

from search.candidate import Candidate
from search.errors import Infeasible
from search.evaluation import Evaluation, Status
from search.knowledge import Knowledge
from search.problem import Problem
from search.space import Values
from search.space.settings import Bounds, Doc
from search.stepping.curves import Curve
from search.stepping.lattice import Lattice, Point, distinct
from search.stepping.losses import Losses
from search.strategy import StrategyFamily
from search.students.saliency import Kind, saliencies
from search.students.students import SHARES, Options, Students

_DRAWS = 8  # draws of the losses before the search gives up looking for a new student
_GIVEN_UP = 2  # failures after which an option that never worked is left alone


@dataclass(frozen=True)
class Settings:
    """Settings of the saliency and of the use of the budget."""

    saliency: Annotated[Kind, Doc("estimate of what a width loses by which the first student is chosen")] = "fisher"
    students: Annotated[
        int, Doc("number of students chosen by saliency alone, at most half of the evaluations"), Bounds(1, 100)
    ] = 8
    distilled: Annotated[
        int,
        Doc("number of the best students scored again after a short distillation, at most a tenth of the evaluations"),
        Bounds(0, 20),
    ] = 2


class Hakd:
    """Strategy that computes every proposal from the known evaluations alone, so that a restart loses nothing.

    Raises: InvalidInput for a Subset knob.
    """

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        self._problem = problem
        self._seed = seed
        self._lattice = Lattice(problem)
        self._students = Students(problem, self._lattice)
        self._losses = Losses(problem, self._lattice)
        self._known = Knowledge(problem, "hakd", seed)
        self._distilled = Knowledge(problem, "hakd-F3", seed, fidelity="F3")
        known = saliencies(problem, self._lattice)
        first = [kind for kind in known if kind == settings.saliency]
        self._saliencies = [known[kind] for kind in [*first, *(kind for kind in known if kind not in first)]]
        self._designs: dict[frozenset[tuple[int, int]], list[Point]] = {}
        self._first_count = min(settings.students, max(1, problem.evaluations // 2))
        self._distilled_count = min(settings.distilled, problem.evaluations // 10)

    def ask(self, count: int) -> list[Candidate]:
        return list(islice(chain(self._first(), self._second_look(), self._corrected()), count))

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._known.note(evaluations, pending)
        self._distilled.note(evaluations, pending)

    @property
    def notes(self) -> Sequence[str]:
        """Sentences on why students may not have been the best (see search.strategy.Noted)."""
        return self._students.notes

    # Students by saliency alone.

    def _first(self) -> Iterator[Candidate]:
        for point in self._designed():
            yield from self._fresh(point)

    def _designed(self) -> list[Point]:
        """Return the students by saliency: the best by each saliency, then the second best by each, and so on."""
        banned = self._banned()
        if banned not in self._designs:
            ranked = [self._within(curves, banned)[: self._first_count] for curves in self._saliencies]
            in_turn = [point for turn in zip_longest(*ranked) for point in turn if point is not None]
            self._designs[banned] = distinct(in_turn)[: self._first_count]
        return self._designs[banned]

    def _within(self, curves: Sequence[Curve], banned: Options, shares: Sequence[float] = SHARES) -> list[Point]:
        """Return the students without the banned options or, if none of these is within the limits, with them."""
        try:
            return self._students.within(curves, banned, shares)
        except Infeasible:
            if not banned:
                raise
            return self._students.within(curves, (), shares)

    # The best of them after a short distillation.

    def _second_look(self) -> Iterator[Candidate]:
        designed = [self._lattice.values(point) for point in self._designed()]
        if not all(self._known.resolved(values) for values in designed):
            return
        scored = [(utility, values) for values in designed if (utility := self._known.utility(values)) is not None]
        best = sorted(scored, key=lambda item: -item[0])[: self._distilled_count]
        for values in (values for _, values in best):
            if self._distilled.fresh(values):
                made = self._distilled.candidate(values, self._known.parents(values))
                yield replace(made, origin="hakd")

    # Students by losses that the evaluations have corrected.

    def _corrected(self) -> Iterator[Candidate]:
        """Yield the best student by the corrected losses, then the best by draws of these, then the next best."""
        fitted, banned = self._fitted(), self._banned()
        best, *others = self._within(fitted.curves, banned)
        yield from self._fresh(best)
        for attempt in range(_DRAWS):
            drawn = fitted.drawn(np.random.default_rng([self._seed, self._known.asked, attempt]))
            yield from self._fresh(self._within(drawn.curves, banned, (1.0,))[0])
        for point in others:
            yield from self._fresh(point)

    def _fitted(self) -> Losses:
        known = [(self._lattice.point(values), utility) for values, utility in self._known.completed()]
        on_lattice = [(point, utility) for point, utility in known if point is not None]
        return self._losses.fit([point for point, _ in on_lattice], [utility for _, utility in on_lattice])

    def _fresh(self, point: Point) -> Iterator[Candidate]:
        values = self._lattice.values(point)
        if self._known.fresh(values):
            yield self._known.candidate(values)

    def _banned(self) -> frozenset[tuple[int, int]]:
        """Return the options that failed repeatedly and have never worked."""
        failed: Counter[tuple[int, int]] = Counter()
        worked: set[tuple[int, int]] = set()
        for evaluation in self._known.evaluations():
            options = self._options(evaluation.candidate.values)
            worked |= options if evaluation.status is Status.COMPLETED else set()
            failed.update(options if evaluation.status is Status.FAILED else ())
        return frozenset(each for each, count in failed.items() if count >= _GIVEN_UP and each not in worked)

    def _options(self, values: Values) -> set[tuple[int, int]]:
        """Return the options, other than that of the whole network, as (knob, option) pairs."""
        chosen = (
            (i, self._lattice.rungs[i].values.index(values[self._lattice.rungs[i].name]))
            for i in self._lattice.unordered
        )
        return {(i, option) for i, option in chosen if option != self._lattice.top[i]}


STRATEGY = StrategyFamily(
    name="hakd",
    summary="Chooses the widths that keep the most Fisher saliency in the measured time, exactly, then corrects them.",
    source="Turner et al. 2018, HAKD / Distilling with Performance Enhanced Students (arXiv 1810.10460)",
    settings=Settings,
    make=Hakd,
)
