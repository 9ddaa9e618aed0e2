"""The search phase: the problem from the profile, the strategies of the plan, one pool, one loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search import strategies
from search.metrics import METRICS, latency_metric, parse_limit, parse_limits
from search.pareto import best
from search.problem import Constraint, Objective, Problem
from search.settings import check_settings
from workers.context import Context, Halted
from workers.inputs import Inputs
from workers.loop import Rules, Searched, loop
from workers.material import Material
from workers.plan import JobPlan, Named
from workers.pool import Pool
from workers.problem import Wanted
from workers.profile import Profile
from workers.progress import PHASES, Evaluated, Message, Summarised
from workers.race import MakeStrategy
from workers.summary import predicted_summary
from workers.table_watch import TableWatch

JUDGED_AFTER_TRAINING = ("accuracy", "test_accuracy")
SEARCH_SHARE = 0.6
"""Of the wall seconds, where finalists are to be trained with what is left."""
HALF = 0.5
"""Bound on an objective that is no accuracy and has no limit of its own, as a share of the original."""


def problem_of(
    context: Context, profile: Profile, sensitivity: Mapping[str, NDArray[np.float64]], material: Material
) -> Problem:
    """What the strategies work on: accuracy as the objective, every limit that can be estimated as a bound."""
    plan = context.plan
    wanted = Wanted(
        objectives=(Objective(plan.metric, "max"),),
        constraints=constraints(plan, profile),
        original=profile.original,
        network=material.network.digest,
        evaluations=plan.budget.evaluations,
        statistics={"sensitivity": dict(sensitivity), "importance": dict(material.evidence.importance)},
    )
    return profile.builder.problem([timed.device for timed in profile.devices], wanted)


def constraints(plan: JobPlan, profile: Profile) -> tuple[Constraint, ...]:
    """The targets' limits as predictions see them, and the plan's other limits but those on accuracy."""
    counted = {
        name: value
        for name, value in plan.limits.items()
        if value is not None and parse_limit(name).metric.name not in JUDGED_AFTER_TRAINING
    }
    found = [Constraint(latency_metric(timed.target.device_id), timed.bound_ms, "max") for timed in profile.devices]
    found += parse_limits(counted, profile.original)
    found += _bound_on_objective(plan, profile, found)
    return tuple(found)


def _bound_on_objective(plan: JobPlan, profile: Profile, found: Sequence[Constraint]) -> list[Constraint]:
    """A smaller metric is wanted for itself: strategies maximise accuracy, so it becomes a bound to reach."""
    if plan.objective_metric in JUDGED_AFTER_TRAINING:
        return []
    metric = METRICS[plan.objective_metric]
    keys = [latency_metric(t.target.device_id) for t in profile.devices] if metric.per_device else [metric.name]
    bounded = {constraint.metric for constraint in found}
    return [Constraint(key, HALF * profile.original[key], "max") for key in keys if key not in bounded]


def makers(named: Sequence[Named], seed: int) -> dict[str, MakeStrategy]:
    """The plan's strategies, each with its checked settings.

    Raises:
        search.errors.InvalidInput: an unknown strategy or setting.
    """

    def maker(item: Named) -> MakeStrategy:
        family = strategies.load(item.name)
        settings = check_settings(family.settings, dict(item.settings))
        return lambda problem: family.make(problem, settings, seed)

    return {item.name: maker(item) for item in named}


def searched(context: Context, inputs: Inputs, problem: Problem, watch: TableWatch, pool: Pool) -> Searched:
    """Run the loop, or take what an earlier run found when it had gone past the search.

    Raises:
        JobFailed: every strategy broke.
        Halted: the user wants it.
    """
    recorded = context.recorded
    if recorded.phase is not None and PHASES.index(recorded.phase) > PHASES.index("search"):
        return Searched("finished", recorded.evaluations, context.spent_s)
    budget = context.plan.budget
    share = SEARCH_SHARE if context.plan.training.epochs else 1.0
    rules = Rules(
        evaluations=budget.evaluations,
        wall_s=share * budget.wall_s,
        split=inputs.split,
        seed=context.plan.seed,
        table_epochs=watch.epochs,
        refresh=watch.refresh,
        notice=_best_so_far(problem, recorded.evaluations, watch),
        clock_s=context.clock_s,
    )
    context.at("search", 0, budget.evaluations)
    chosen = makers(context.plan.strategies, context.plan.seed)
    found = loop(problem, chosen, pool, rules, context.ports.emit, recorded, context.ports.signal)
    context.spent_s = found.spent_s
    if found.end in ("paused", "cancelled"):
        raise Halted(found.end)
    return found


def _best_so_far(
    problem: Problem, recorded: Sequence[Evaluated], watch: TableWatch
) -> Callable[[Evaluated], Sequence[Message]]:
    """Announces each new best of the search, as predicted, and tells the watch what was evaluated."""
    earlier = best([each.evaluation for each in recorded], problem)
    known = [earlier] if earlier is not None else []

    def notice(evaluated: Evaluated) -> Sequence[Message]:
        watch.note(evaluated.evaluation)
        if not evaluated.feasible:
            return ()
        leader = best([*known, evaluated.evaluation], problem)
        if leader is not evaluated.evaluation:
            return ()
        known[:] = [leader]
        return (Summarised("best", predicted_summary(evaluated)),)

    return notice
