"""NSGA-II (Deb et al. 2002) with Optuna's operators, steady-state.

There is one departure: the parents of every proposal come from the best `population` of all known points, not from a
generation. So results count as soon as they arrive, in any order, and a restart finds the same parents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from search.problem import Problem
from search.sampling.sampled import Sampled
from search.space.settings import Bounds, Doc
from search.strategy import StrategyFamily

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Settings:
    """Settings for the number of parents and how they are combined."""

    population: Annotated[
        int, Doc("number of parents; the same number of points is first drawn at random"), Bounds(2, 1000)
    ] = 10
    crossover: Annotated[float, Doc("probability that a proposal has two parents"), Bounds(0.0, 1.0)] = 0.9
    swapping: Annotated[float, Doc("probability that a knob comes from the second parent"), Bounds(0.0, 1.0)] = 0.5


def make(problem: Problem, settings: Settings, seed: int) -> Sampled:
    """Return NSGA-II for this problem."""
    return Sampled(problem, "nsga2", seed, settings.population, lambda draw_seed: _sampler(settings, draw_seed))


def _sampler(settings: Settings, seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler
    from optuna.trial import TrialState

    class SteadyState(NSGAIISampler):
        """Sampler for which all known points are generation 0 and every proposal is generation 1."""

        def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
            return 1

        def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
            return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]) if generation == 0 else []

    return SteadyState(
        population_size=settings.population,
        crossover_prob=settings.crossover,
        swapping_prob=settings.swapping,
        seed=seed,
    )


STRATEGY = StrategyFamily(
    name="nsga2",
    summary="Crosses and mutates the best points known, over the whole front of the objectives (Optuna).",
    source="Deb et al. 2002, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II",
    settings=Settings,
    make=make,
    startup=lambda settings: settings.population,
)
