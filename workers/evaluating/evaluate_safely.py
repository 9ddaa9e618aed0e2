"""attempt: evaluates one candidate once, and catches every exception that the evaluator raises."""

from __future__ import annotations

import math
import time

from compress.errors import TrainingDiverged
from search.candidate import Candidate
from search.errors import InvalidInput
from search.evaluation import NAN, Evaluation, Status
from workers.errors import Diverged
from workers.pools.pool import Evaluator


def attempt(evaluator: Evaluator, candidate: Candidate) -> Evaluation:
    """Evaluate a candidate; an exception fails this candidate only."""
    begun_s = time.perf_counter()
    try:
        return evaluator(candidate)
    except Exception as error:
        return ended(candidate, Status.FAILED, _reason(error), time.perf_counter() - begun_s)


def ended(candidate: Candidate, status: Status, reason: str, elapsed_s: float = 0.0) -> Evaluation:
    """Make an evaluation that has no metrics."""
    return Evaluation(candidate=candidate, status=status, metrics={}, elapsed_s=elapsed_s, reason=reason, network=None)


def _reason(error: Exception) -> str:
    # An Evaluation rejects metrics that are not finite.
    refused = isinstance(error, InvalidInput) and isinstance(error.value, float) and not math.isfinite(error.value)
    if refused or isinstance(error, Diverged | TrainingDiverged):
        return NAN
    return f"{type(error).__name__}: {error}"
