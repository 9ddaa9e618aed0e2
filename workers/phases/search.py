"""The search phase: searches the profile's problem with the plan's strategies, in one pool and one loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search import strategies
from search.candidate import Candidate
from search.metrics import latency_metric, parse_limit, parse_limits
from search.problem import Constraint, Objective, Problem
from search.space.settings import check_settings
from workers.evaluating.evaluation_files import Material
from workers.evaluating.whole_training import Sampler
from workers.phases.statistics import Statistics
from workers.plan import JobPlan, Named
from workers.pools.pool import Pool
from workers.problem.builder import Wanted
from workers.problem.layer_errors import layer_errors
from workers.profiling.timed_device import Profile
from workers.progress import Evaluated, Message
from workers.running import memos
from workers.running.context import Context, Halted
from workers.running.inputs import Inputs
from workers.running.job_run import JobRun
from workers.search.best_so_far import BestSoFar
from workers.search.loop import Rules, Searched, loop
from workers.search.race import MakeStrategy
from workers.search.table_watch import TableWatch

SEARCH_SHARE = 0.6
"""Share of the wall seconds that the search gets if finalists are to be trained in the remaining time."""


def problem_of(
    context: Context,
    profile: Profile,
    sensitivity: Mapping[str, NDArray[np.float64]],
    material: Material,
    reference: float | None = None,
    chance: float = 0.0,
) -> Problem:
    """Build the problem for the strategies: the plan's objective, and every limit that can be estimated as a
    constraint.

    Args:
        reference: the control's score on the ranking images, if the search trains networks fully and compares their
            scores with it; if None, the original's score is used.
        chance: the score of guessing.
    """
    plan = context.plan
    original = profile.original if reference is None else {**profile.original, plan.metric: reference}
    wanted = Wanted(
        objectives=(Objective(plan.objective_key, plan.objective_goal),),
        constraints=constraints(plan, profile),
        original=original,
        network=material.network.digest,
        evaluations=plan.budget.evaluations,
        statistics={
            **material.known,
            "sensitivity": dict(sensitivity),
            "importance": dict(material.evidence.importance),
            "ls_error": layer_errors(profile.builder.space, material),
        },
        level=level(plan, original),
        images=len(material.ranking[1]),
        chance=chance,
        deciding=plan.metric,
    )
    return profile.builder.problem([timed.device for timed in profile.devices], wanted)


def constraints(plan: JobPlan, profile: Profile) -> tuple[Constraint, ...]:
    """Return the targets' limits in terms of predictions, and the plan's other limits except those on scores."""
    counted = {
        name: value for name, value in plan.limits.items() if value is not None and not parse_limit(name).metric.scored
    }
    found = [Constraint(latency_metric(timed.target.device_id), timed.bound_ms, "max") for timed in profile.devices]
    return (*found, *parse_limits(counted, profile.original))


def level(plan: JobPlan, original: Mapping[str, float]) -> float | None:
    """Return the lowest score of a trained network that the plan's limits accept, or None if they do not limit the
    score.
    """
    said = {name: value for name, value in plan.limits.items() if parse_limit(name).metric.name == plan.metric}
    least = [limit.bound for limit in parse_limits(said, original) if limit.sense == "min"]
    return max([0.0, *least]) if least else None


def makers(named: Sequence[Named], seed: int) -> dict[str, MakeStrategy]:
    """Return the plan's strategies, each with its checked settings.

    Raises:
        search.errors.InvalidInput: a strategy or a setting is unknown.
    """

    def maker(item: Named) -> MakeStrategy:
        family = strategies.load(item.name)
        settings = check_settings(family.settings, dict(item.settings))
        return lambda problem: family.make(problem, settings, seed)

    return {item.name: maker(item) for item in named}


def searched(
    context: Context, inputs: Inputs, watch: TableWatch, pool: Pool, reached: Callable[[Candidate], float]
) -> Searched:
    """Run the loop, or return an earlier run's findings if its search had ended: an ended search is never continued.

    Args:
        reached: returns the finished share of a full training run.

    Raises:
        JobFailed: every strategy failed.
        Halted: the user paused or cancelled the job.
    """
    recorded = context.recorded
    if context.recall(memos.SEARCH_ENDED) is not None:
        # Candidates that an earlier run trained and timed afterwards are not part of the search.
        found = tuple(each for each in recorded.evaluations if each.evaluation.candidate.searched)
        return Searched("finished", found, context.spent_s)
    budget = context.plan.budget
    share = SEARCH_SHARE if context.plan.training.epochs else 1.0
    best = BestSoFar(lambda: watch.problem, recorded.evaluations)

    def notice(evaluated: Evaluated) -> Sequence[Message]:
        watch.note(evaluated.evaluation)
        return best(evaluated)

    rules = Rules(
        evaluations=budget.evaluations,
        wall_s=share * budget.wall_s,
        split=inputs.split,
        seed=context.plan.seed,
        table_epochs=watch.epochs,
        refresh=watch.refresh,
        notice=notice,
        reached=reached,
        clock_s=context.clock_s,
    )
    context.at("search", 0, budget.evaluations)
    chosen = makers(context.plan.strategies, context.plan.seed)
    ended = loop(watch.problem, chosen, pool, rules, context.ports.emit, recorded, context.ports.signal)
    context.spent_s = ended.spent_s
    if ended.end in ("paused", "cancelled"):
        raise Halted(ended.end)
    context.keep(memos.SEARCH_ENDED, memos.SearchEnd(ended.end, ended.spent_s))
    return ended


def cut_short(context: Context, evaluated: Sequence[Evaluated]) -> Sequence[str]:
    """Return a sentence if the search ran out of time before it ran out of evaluations."""
    known = context.recall(memos.SEARCH_ENDED)
    if known is None or known.end != "wall":
        return ()
    budget = context.plan.budget
    done = sum(not each.cached for each in evaluated)
    share = f"{SEARCH_SHARE:.0%} of " if context.plan.training.epochs else ""
    time = f"{share}{budget.wall_s:g} wall seconds were used up"
    return (f"The search ended after {done} of {budget.evaluations} evaluations: {time}.",)


@dataclass(frozen=True)
class Result:
    """A search's findings, with the profile and the problem under the newest tables.

    `make` makes the problem of another profile. `eligible` has the evaluations from which finalists are chosen, if
    these are not all evaluations.
    """

    profile: Profile
    problem: Problem
    evaluated: Sequence[Evaluated]
    make: Callable[[Profile], Problem]
    eligible: Sequence[Evaluated] | None = None


def search(run: JobRun, found: Profile, known: Statistics) -> Result:
    """Search, or return an earlier run's findings.

    Raises:
        JobFailed: every strategy failed.
        Halted: the user paused or cancelled the job.
    """

    def make(newest: Profile) -> Problem:
        return problem_of(run.context, newest, known.curves, known.material, known.reference, run.inputs.chance)

    watch = TableWatch(run.context, found, make)
    reached = Sampler(known.material, known.training).reached
    ended = searched(run.context, run.inputs, watch, known.pool, reached)
    return Result(watch.profile, watch.problem, ended.evaluated, make)
