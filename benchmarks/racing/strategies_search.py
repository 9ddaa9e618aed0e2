"""Searches an arena's problem with some of the project's strategies, as a job does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from racing.arena import DEVICE, FINALISTS, Arena
from search.evaluation import Status
from search.metrics import latency_metric
from search.problem import Problem
from workers.phases.search import Result, makers
from workers.phases.statistics import Statistics
from workers.phases.trial import trial
from workers.plan import Named
from workers.pools.in_process_pool import InProcessPool
from workers.ports import Recorded
from workers.profiling.timed_device import Profile
from workers.progress import Evaluated
from workers.search.loop import Rules, loop
from workers.training.choosing import chosen_finalists

LATENCY = latency_metric(DEVICE)


def searched(
    arena: Arena, known: Statistics, make: Callable[[Profile], Problem], names: Sequence[str]
) -> dict[str, Any]:
    """Search, time the best candidates whole, and return the finalists and what the search cost, as fields of a row."""
    plan, problem, begun_s = arena.run.context.plan, make(arena.found), time.perf_counter()
    assert isinstance(known.pool, InProcessPool)
    rules = Rules(plan.budget.evaluations, split=arena.run.inputs.split, seed=arena.seed)
    chosen = makers([Named(name) for name in names], arena.seed)
    ended = loop(problem, chosen, known.pool, rules, lambda *messages: None)
    search_s = time.perf_counter() - begun_s

    def search_on(before: Result, corrected: Profile) -> Result:
        newer = before.make(corrected)
        recorded = Recorded(evaluations=tuple(before.evaluated))
        further = loop(newer, chosen, known.pool, rules, lambda *messages: None, recorded)
        return replace(before, profile=corrected, problem=newer, evaluated=further.evaluated)

    result = trial(arena.fresh(), Result(arena.found, problem, ended.evaluated, make), search_on)
    best = chosen_finalists(result.eligible or result.evaluated, result.problem, FINALISTS)
    paid = [each for each in result.evaluated if not each.cached]
    return {
        "seconds": round(search_s, 1),
        "timing_seconds": round(time.perf_counter() - begun_s - search_s, 1),
        "worker_seconds": round(sum(each.evaluation.elapsed_s for each in paid), 1),
        "evaluations": dict(Counter(each.evaluation.candidate.fidelity for each in paid)),
        "finalists": [_finalist(arena, problem, each) for each in best],
        "path": [_point(arena, each) for each in paid],
    }


def _finalist(arena: Arena, problem: Problem, each: Evaluated) -> dict[str, Any]:
    """Return a finalist as JSON; `timed` is its share of the original's latency, timed whole before training."""
    candidate = replace(each.evaluation.candidate, masks=dict(each.evaluation.candidate.masks)).to_json()
    (predicted_ms,) = problem.estimate([each.evaluation.candidate.values])[LATENCY]
    return {
        "methods": list(arena.contest.methods),
        "values": candidate["values"],
        "masks": candidate["masks"],
        "strategy": each.strategy,
        "score": each.evaluation.metrics[problem.deciding],
        "predicted": float(predicted_ms) / arena.found.original[LATENCY],
        "timed": each.evaluation.metrics[LATENCY] / arena.found.original[LATENCY],
    }


def _point(arena: Arena, each: Evaluated) -> list[Any]:
    """Return [strategy, fidelity, score, predicted share of the latency] of an evaluation; the score is None if there
    is no result.
    """
    metrics: Mapping[str, float] = each.evaluation.metrics
    done = each.evaluation.status is Status.COMPLETED
    score = round(metrics[arena.run.context.plan.metric], 4) if done else None
    share = round(metrics[LATENCY] / arena.found.original[LATENCY], 4) if LATENCY in metrics else None
    return [each.strategy, each.evaluation.candidate.fidelity, score, share]
