"""TPE (Bergstra et al. 2011; multivariate, as in Falkner et al. 2018), with Optuna's implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from search.problem import Problem
from search.sampling.sampled import Sampled
from search.space.settings import Bounds, Doc
from search.strategy import StrategyFamily

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class Settings:
    """Settings for the random start and for the search with the model."""

    startup: Annotated[int, Doc("number of random points before the model is used"), Bounds(1, 1000)] = 10
    draws: Annotated[int, Doc("number of promising points compared for each proposal"), Bounds(1, 1000)] = 24


def make(problem: Problem, settings: Settings, seed: int) -> Sampled:
    """Return TPE for this problem."""

    def sampler(draw_seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(n_startup_trials=settings.startup, n_ei_candidates=settings.draws, seed=draw_seed)

    return Sampled(problem, "tpe", seed, settings.startup, sampler)


STRATEGY = StrategyFamily(
    name="tpe",
    summary="Models where good and bad points lie, and proposes points where good points are likelier (Optuna).",
    source="Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization",
    settings=Settings,
    make=make,
    startup=lambda settings: settings.startup,
)
