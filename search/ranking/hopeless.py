"""Hopeless options: options of unordered knobs that another option beats, so that no strategy spends evaluations on
them.

On most processors int8 is faster than fp32 at every width and loses almost nothing. Under a tight latency limit an fp32
network must then be cut further than an int8 network, and cannot win.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.evaluation import Evaluation
from search.problem import Problem
from search.space import Choice, Knob, Levelled, Space, Value, Values
from search.terms import Term, Terms

POINTS = 256
"""Number of random points at which two options are compared."""
FREE_LOSS = 0.01
"""Largest share of the objective by which an option may be worse on its own and still beat another option."""
BY_LEVEL = ("sensitivity", "ls_error")
"""Statistics that have one number for each level of a knob."""


@dataclass(frozen=True)
class Hopeless:
    """The options that cannot win, as knob -> options."""

    options: Mapping[str, Sequence[Value]]

    def has(self, values: Values) -> bool:
        """Return True if the values have a hopeless option."""
        return any(values.get(name) in options for name, options in self.options.items())

    def without(self, problem: Problem) -> Problem:
        """Return the problem without these options."""
        if not self.options:
            return problem
        kept = {knob.name: self._levels(knob) for knob in problem.space.levelled if knob.name in self.options}
        return replace(
            problem,
            space=Space(tuple(_narrower(knob, kept) for knob in problem.space.knobs)),
            terms={metric: _cut(terms, kept) for metric, terms in problem.terms.items()},
            statistics={
                name: {
                    knob: each[kept[knob]] if knob in kept and name in BY_LEVEL else each for knob, each in of.items()
                }
                for name, of in problem.statistics.items()
            },
        )

    def told(self, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        """Return the evaluations without those of hopeless options."""
        return [each for each in evaluations if not self.has(each.candidate.values)]

    def common(self, other: Hopeless) -> Hopeless:
        """Return the options that cannot win in either of two problems."""
        shared = {
            name: tuple(each for each in options if each in other.options.get(name, ()))
            for name, options in self.options.items()
        }
        return Hopeless({name: options for name, options in shared.items() if options})

    def _levels(self, knob: Levelled) -> NDArray[np.int64]:
        gone = self.options[knob.name]
        return np.array([level for level in range(knob.level_count) if knob.value(level) not in gone], dtype=np.int64)


def hopeless(problem: Problem) -> Hopeless:
    """Return the options that cannot win within the limits, by the estimates and the sensitivities.

    An option cannot win if the score is the objective, the otherwise uncut network with this option is over a limit,
    and another option has the same or lower values of every limited metric at all of POINTS random points and, on its
    own, loses at most FREE_LOSS more of the score.
    """
    if problem.objective.metric != problem.deciding or not problem.constraints:
        return Hopeless({})
    found = {}
    for knob in problem.space.levelled:
        if not knob.ordered and knob.name in problem.statistics.get("sensitivity", {}):
            gone = tuple(_beaten(problem, knob))
            if gone:
                found[knob.name] = gone
    return Hopeless(found)


def _beaten(problem: Problem, knob: Levelled) -> Iterator[Value]:
    """Yield the options that another option beats. Of two options that beat each other, the first is kept."""
    scores = problem.statistics["sensitivity"][knob.name]
    costs = _costs(problem, knob)
    options = [knob.value(level) for level in range(knob.level_count)]
    uncut = problem.violations([{**problem.space.whole, knob.name: option} for option in options])

    def beats(a: int, b: int) -> bool:
        worth = scores[a] >= scores[b] - FREE_LOSS * abs(scores[knob.level(knob.whole)])
        return bool(worth and (costs[a] <= costs[b]).all())

    for level, option in enumerate(options):
        others = [each for each in range(len(options)) if each != level]
        if uncut[level] > 0.0 and any(beats(a, level) and (a < level or not beats(level, a)) for a in others):
            yield option


def _costs(problem: Problem, knob: Levelled) -> list[NDArray[np.float64]]:
    """Return, for each option, the (limited metrics, points) estimates at random points; less is better."""
    rng = np.random.default_rng(0)
    points = [problem.space.whole, *(problem.space.sample(rng) for _ in range(POINTS - 1))]
    signs = {each.metric: 1.0 if each.sense == "max" else -1.0 for each in problem.constraints}
    found = []
    for level in range(knob.level_count):
        metrics = problem.estimate([{**point, knob.name: knob.value(level)} for point in points])
        found.append(np.stack([sign * metrics[name] for name, sign in signs.items()]))
    return found


def _narrower(knob: Knob, kept: Mapping[str, NDArray[np.int64]]) -> Knob:
    if not isinstance(knob, Choice) or knob.name not in kept:
        return knob
    return replace(knob, options=tuple(knob.options[level] for level in kept[knob.name]))


def _cut(terms: Terms, kept: Mapping[str, NDArray[np.int64]]) -> Terms:
    def cut(term: Term) -> Term:
        table = term.table_ms
        for axis, name in enumerate(term.knobs):
            if name in kept:
                table = table.take(kept[name], axis=axis)
        return Term(term.knobs, table)

    return replace(terms, terms=tuple(cut(term) for term in terms.terms))
