"""The search phase: searches the profile's problem with the plan's strategies, in one pool and one loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search import strategies
from search.metrics import latency_metric, parse_limit, parse_limits
from search.problem import Constraint, Objective, Problem
from search.space.settings import check_settings
from search.strategy import Strategy
from workers.evaluating.evaluation_files import Material
from workers.evaluating.whole_training import Sampler
from workers.phases.statistics import Statistics
from workers.plan import JobPlan, Named
from workers.problem.aims import searched_aims
from workers.problem.builder import Wanted
from workers.problem.layer_errors import layer_errors
from workers.profiling.timed_device import Profile
from workers.progress import Evaluated, Message
from workers.running import memos
from workers.running.context import Context, Halted
from workers.running.job_run import JobRun
from workers.running.memo import Memo
from workers.search.best_so_far import BestSoFar
from workers.search.in_turn import InTurn
from workers.search.loop import Rules, loop
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
    """Return the targets' limits in terms of predictions, and the plan's other limits except those on scores.

    A limit that nothing meets on one device is left out, so that it does not keep the others from their networks.
    """
    counted = {
        name: value for name, value in plan.limits.items() if value is not None and not parse_limit(name).metric.scored
    }
    limited = profile.in_reach or profile.devices
    found = [Constraint(latency_metric(timed.target.device_id), timed.bound_ms, "max") for timed in limited]
    return (*found, *parse_limits(counted, profile.original))


def level(plan: JobPlan, original: Mapping[str, float]) -> float | None:
    """Return the lowest score of a trained network that the plan's limits accept, or None if they do not limit the
    score.
    """
    said = {name: value for name, value in plan.limits.items() if parse_limit(name).metric.name == plan.metric}
    least = [limit.bound for limit in parse_limits(said, original) if limit.sense == "min"]
    return max([0.0, *least]) if least else None


def makers(named: Sequence[Named], seed: int) -> dict[str, MakeStrategy]:
    """Return the plan's strategies, each with its checked settings. A job with several devices has several aims; each
    strategy then takes turns between them, with seeds and so with ids of their own.

    Raises:
        search.errors.InvalidInput: a strategy or a setting is unknown.
    """

    def maker(item: Named) -> MakeStrategy:
        family = strategies.load(item.name)
        settings = check_settings(family.settings, dict(item.settings))

        def make(problem: Problem) -> Strategy:
            aims = searched_aims(problem)
            if len(aims) == 1:
                return family.make(problem, settings, seed)
            return InTurn(item.name, aims, lambda aim, number: family.make(aim, settings, seed + number))

        return make

    return {item.name: maker(item) for item in named}


def cut_short(context: Context, evaluated: Sequence[Evaluated]) -> Sequence[str]:
    """Return a sentence if the search ran out of time before it ran out of evaluations."""
    ends = _ends(context)
    if not ends or ends[-1].end != "wall":
        return ()
    budget = context.plan.budget
    done = paid(evaluated)
    share = f"{SEARCH_SHARE:.0%} of " if context.plan.training.epochs else ""
    time = f"{share}{budget.wall_s:g} wall seconds were used up"
    return (f"The search ended after {done} of {budget.evaluations} evaluations: {time}.",)


def noted(context: Context) -> Sequence[str]:
    """Return what the strategies said about their search, once it has ended."""
    return tuple(dict.fromkeys(note for end in _ends(context) for note in end.notes))


def _ends(context: Context) -> list[memos.SearchEnd]:
    """Return the ends of the search so far: it may go on once after its first end."""
    ends = (context.recall(memo) for memo in (memos.SEARCH_ENDED, memos.SEARCH_ENDED_AGAIN))
    return [end for end in ends if end is not None]


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

    return _searched(run, known, memos.SEARCH_ENDED, found, make)


def search_on(run: JobRun, known: Statistics, result: Result, corrected: Profile) -> Result:
    """Continue an ended search under a corrected profile, with what is left of its budget.

    Raises:
        JobFailed: every strategy failed.
        Halted: the user paused or cancelled the job.
    """
    return _searched(run, known, memos.SEARCH_ENDED_AGAIN, corrected, result.make, result.evaluated)


def paid(evaluated: Sequence[Evaluated]) -> int:
    """Return the number of evaluations that count towards the budget."""
    return sum(not each.cached for each in evaluated)


def _searched(
    run: JobRun,
    known: Statistics,
    memo: Memo[memos.SearchEnd],
    profile: Profile,
    make: Callable[[Profile], Problem],
    before: Sequence[Evaluated] = (),
) -> Result:
    """Run the loop, or return an earlier run's findings if this search had ended: an ended search is never continued.

    Args:
        memo: the memo of the end of this search.
        before: the evaluations of the search that this one continues.
    """
    context, plan = run.context, run.context.plan
    watch = TableWatch(context, profile, make)
    # Candidates that an earlier run trained and timed afterwards are not part of the search.
    earlier = tuple(each for each in context.recorded.evaluations if each.evaluation.candidate.searched)
    end = context.recall(memo)
    if end is not None:
        return Result(watch.profile, watch.problem, earlier[: end.evaluated], make)
    recorded = replace(context.recorded, evaluations=max(earlier, tuple(before), key=len), spent_s=context.spent_s)
    context.at("search", min(paid(recorded.evaluations), plan.budget.evaluations), plan.budget.evaluations)
    rules = _rules(run, known, watch, recorded.evaluations)
    chosen = makers(plan.strategies, plan.seed)
    ended = loop(watch.problem, chosen, known.pool, rules, context.ports.emit, recorded, context.ports.signal)
    context.spent_s = ended.spent_s
    if ended.end in ("paused", "cancelled"):
        raise Halted(ended.end)
    context.keep(memo, memos.SearchEnd(ended.end, ended.spent_s, len(ended.evaluated), ended.notes))
    return Result(watch.profile, watch.problem, ended.evaluated, make)


def _rules(run: JobRun, known: Statistics, watch: TableWatch, evaluated: Sequence[Evaluated]) -> Rules:
    plan, best = run.context.plan, BestSoFar(lambda: watch.problem, evaluated)

    def notice(newest: Evaluated) -> Sequence[Message]:
        watch.note(newest.evaluation)
        return best(newest)

    return Rules(
        evaluations=plan.budget.evaluations,
        wall_s=(SEARCH_SHARE if plan.training.epochs else 1.0) * plan.budget.wall_s,
        split=run.inputs.split,
        seed=plan.seed,
        table_epochs=watch.epochs,
        refresh=watch.refresh,
        notice=notice,
        reached=Sampler(known.material, known.training).reached,
        clock_s=run.context.clock_s,
    )
