"""Optuna's samplers as strategies: for every proposal, a study in memory is rebuilt from the evaluations reported so
far.

Optuna is imported inside the functions that use it, so that it is loaded only if it is needed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np

from search.candidate import Candidate
from search.errors import InvalidInput
from search.evaluation import Evaluation, Status
from search.knowledge import Knowledge
from search.problem import Problem
from search.sampling.draws import drawn
from search.space import Choice, Float, Int, Knob, Levelled, Subset, Value, Values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

MakeSampler: TypeAlias = "Callable[[int], BaseSampler]"
"""Function from a seed to a new sampler."""
Distributions: TypeAlias = "dict[str, BaseDistribution]"

_LIMITS = "limits"
_STEPS = 33  # steps from the smallest network to a proposal, and from the proposal to the largest network
_PROPOSALS = 32


class Sampled:
    """Strategy whose candidate n is the first unknown proposal of a sampler seeded by `default_rng([seed, n, origin])`.

    The first `startup` points are drawn at random; so are later points if the sampler only proposes known ones. The
    origin, i.e. the strategy's name, is part of the seed so that two strategies of a race draw different points. A
    proposal is moved to the limits before it is evaluated: all its ordered knobs shrink by the same share until the
    estimate meets the limits. If no objective can be estimated, e.g. because it is a score, the knobs also grow until
    the limits are reached, because unused room is then worth nothing. Samplers learn from the points that were
    evaluated, not from their own proposals, and they also see the points in flight. Raises: InvalidInput for a Subset
    knob.
    """

    def __init__(self, problem: Problem, origin: str, seed: int, startup: int, sampler: MakeSampler) -> None:
        for knob in problem.space.knobs:
            if isinstance(knob, Subset):
                raise InvalidInput(knob.name, knob, "this strategy chooses widths and cannot search a Subset knob")
        self._problem = problem
        self._seed = seed
        self._stream = zlib.crc32(origin.encode())
        self._startup = startup
        self._sampler = sampler
        self._known = Knowledge(problem, origin, seed)

    def ask(self, count: int) -> list[Candidate]:
        asked: list[Candidate] = []
        while len(asked) < count:
            values = self._next(np.random.default_rng([self._seed, self._known.asked, self._stream]))
            if values is None:
                break
            asked.append(self._known.candidate(values))
        return asked

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._known.note(evaluations, pending)

    def _next(self, rng: np.random.Generator) -> dict[str, Value] | None:
        """Return the next point; None if nothing is left. Raises: Infeasible if no point is within the limits."""
        finished = self._finished()
        if len(finished) >= self._startup:
            for proposal in self._proposals(finished, int(rng.integers(2**31))):
                values = self._at_the_limits(proposal)
                if values is not None and self._known.fresh(values):
                    return values
        return drawn(self._problem, rng, self._known.fresh)

    def _proposals(self, finished: Sequence[Evaluation], seed: int) -> Iterator[dict[str, Value]]:
        distributions = {knob.name: _distribution(knob) for knob in self._problem.space.knobs}
        study = self._study(finished, seed, distributions)
        for _ in range(_PROPOSALS):
            params = study.ask(distributions).params
            yield {knob.name: _value(knob, params[knob.name]) for knob in self._problem.space.knobs}

    def _at_the_limits(self, values: Values) -> dict[str, Value] | None:
        """Return the largest feasible point on the line from the smallest network to these values and, if knobs may
        grow, beyond.
        """
        scales = np.linspace(0.0, 2.0, 2 * _STEPS - 1)[: None if self._grows else _STEPS]
        points = [self._scaled(values, float(scale)) for scale in scales]
        feasible = np.flatnonzero(self._problem.violations(points) == 0.0)
        return points[feasible[-1]] if len(feasible) else None

    @cached_property
    def _grows(self) -> bool:
        """True if knobs also grow up to the limits, because a larger network is then better."""
        problem = self._problem
        if not problem.constraints:
            return False
        estimated = problem.estimate([problem.space.sample(np.random.default_rng(0))])
        return all(objective.metric not in estimated for objective in problem.objectives)

    def _scaled(self, values: Values, scale: float) -> dict[str, Value]:
        """Return the values at a scale: 0 gives the smallest network with these options, 1 these values, 2 the largest
        network.
        """
        found = dict(values)
        for knob in self._problem.space.knobs:
            if scale != 1.0 and knob.ordered:
                code = knob.encode(values[knob.name])
                found[knob.name] = knob.decode(code * scale if scale < 1.0 else code + (1.0 - code) * (scale - 1.0))
        return found

    # Study: the evaluations that the sampler sees.

    def _study(self, finished: Sequence[Evaluation], seed: int, distributions: Distributions) -> Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # optuna logs every new study
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        directions = [up if objective.goal == "max" else down for objective in self._problem.objectives]
        study = optuna.create_study(directions=directions, sampler=self._sampler(seed))
        study.add_trials([*self._trials(finished, distributions), *self._running(distributions)])
        return study

    def _finished(self) -> list[Evaluation]:
        """Return the evaluations that have every objective, ordered by id, because samplers give later results more
        weight.
        """
        wanted = {objective.metric for objective in self._problem.objectives}
        done = (e for e in self._known.evaluations() if e.status is Status.COMPLETED and e.metrics.keys() >= wanted)
        return sorted(done, key=lambda evaluation: evaluation.candidate.id)

    def _trials(self, finished: Sequence[Evaluation], distributions: Distributions) -> Iterator[FrozenTrial]:
        from optuna.trial import create_trial

        violations = self._problem.violations([evaluation.candidate.values for evaluation in finished])
        for evaluation, violation in zip(finished, violations, strict=True):
            yield create_trial(
                params=self._params(evaluation.candidate.values),
                distributions=distributions,
                values=[evaluation.metrics[objective.metric] for objective in self._problem.objectives],
                constraints={_LIMITS: float(violation)},
            )

    def _running(self, distributions: Distributions) -> Iterator[FrozenTrial]:
        from optuna.trial import TrialState, create_trial

        for values in self._known.running():
            yield create_trial(state=TrialState.RUNNING, params=self._params(values), distributions=distributions)

    def _params(self, values: Values) -> dict[str, Any]:
        return {knob.name: _param(knob, values[knob.name]) for knob in self._problem.space.knobs}


def _distribution(knob: Knob) -> BaseDistribution:
    """Return optuna's distribution of a knob; ordered options are numbered, so that the sampler knows neighbours."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(knob, Float):
        return FloatDistribution(knob.low, knob.high)
    if _numbered(knob):
        return IntDistribution(0, knob.level_count - 1)
    assert isinstance(knob, Choice)  # the constructor has refused Subset
    return CategoricalDistribution(knob.options)


def _numbered(knob: Knob) -> TypeGuard[Levelled]:
    return isinstance(knob, Int | Choice) and knob.ordered


def _value(knob: Knob, param: Any) -> Value:
    found: Value = knob.value(param) if _numbered(knob) else param
    return found


def _param(knob: Knob, value: Value) -> Any:
    return knob.level(value) if _numbered(knob) else value
