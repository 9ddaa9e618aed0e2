"""Updates evaluations with the newest estimates, because predictions for a candidate change while tables grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from search.evaluation import Evaluation, Status
from search.metrics import base_metric
from search.problem import Problem


def estimated(evaluations: Sequence[Evaluation], problem: Problem) -> list[Evaluation]:
    """Return the evaluations with the problem's current estimates; counts that the evaluator returned take precedence.

    Latency always comes from the problem's tables. Evaluations that are not complete stay unchanged. Do not pass
    evaluations of networks that were timed as a whole (F5): their measurements must not be replaced by estimates.
    """
    complete = [each for each in evaluations if each.status is Status.COMPLETED]
    if not complete:
        return list(evaluations)
    columns = problem.estimate([each.candidate.values for each in complete])
    rows = iter(range(len(complete)))

    def renewed(each: Evaluation) -> Evaluation:
        row = next(rows)
        estimates = {metric: float(column[row]) for metric, column in columns.items()}
        kept = {k: v for k, v in each.metrics.items() if k not in estimates or base_metric(k) != "latency_ms"}
        return replace(each, metrics={**estimates, **kept})

    return [renewed(each) if each.status is Status.COMPLETED else each for each in evaluations]
