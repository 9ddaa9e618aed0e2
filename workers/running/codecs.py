"""Codecs: convert a run's records to plain JSON and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.scoring.difference import Scores
from hw_profiles.timing.protocol import Failure, Sample
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.progress import Evaluated


def scores_json(scores: Scores) -> list[float]:
    """Return one number for each image; 0 and 1 become integers, because these are shorter in JSON."""
    return [int(score) if score in (0.0, 1.0) else float(score) for score in scores]


def scores_from(numbers: Sequence[float]) -> Scores:
    """Read the scores that `scores_json` wrote."""
    return np.array(numbers, dtype=np.float64)


def evaluated_json(each: Evaluated) -> dict[str, Any]:
    """Return a candidate with everything known about it before training."""
    evaluation = each.evaluation
    return {
        "strategy": each.strategy,
        "candidate": evaluation.candidate.to_json(),
        "metrics": dict(evaluation.metrics),
        "feasible": each.feasible,
        "network": evaluation.network,
    }


def evaluated_from(data: Mapping[str, Any]) -> Evaluated:
    """Read the candidate that `evaluated_json` wrote."""
    candidate = Candidate.from_json(data["candidate"])
    evaluation = Evaluation(candidate, Status.COMPLETED, data["metrics"], network=data.get("network"))
    return Evaluated(data["strategy"], evaluation, data["feasible"])


def answer_from(data: Mapping[str, Any]) -> Sample | Failure:
    """Read a sample or a failure from its fields."""
    if "reason" in data:
        return Failure(**data)
    lists = {name: tuple(data[name]) for name in ("minima_us", "medians_us")}
    return Sample(data["key"], **lists, extra=data["extra"])
