"""Decisions of a run that a restart must not take again: newer tables or spent seconds would change them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.progress import Evaluated
from workers.running.context import Context


def decided(context: Context, name: str, decide: Callable[[], Sequence[Evaluated]]) -> list[Evaluated]:
    """The candidates to train that were decided on under this name; decided now where no earlier run has."""
    known = context.recall(name)
    if known is None:
        chosen = decide()
        context.keep(name, {"candidates": [_to_json(each) for each in chosen]})
        return list(chosen)
    return [_from_json(data) for data in known["candidates"]]


def _to_json(each: Evaluated) -> dict[str, Any]:
    evaluation = each.evaluation
    return {
        "strategy": each.strategy,
        "candidate": evaluation.candidate.to_json(),
        "metrics": dict(evaluation.metrics),
        "feasible": each.feasible,
        "network": evaluation.network,
    }


def _from_json(data: Mapping[str, Any]) -> Evaluated:
    candidate = Candidate.from_json(data["candidate"])
    evaluation = Evaluation(candidate, Status.COMPLETED, data["metrics"], network=data.get("network"))
    return Evaluated(data["strategy"], evaluation, data["feasible"])
