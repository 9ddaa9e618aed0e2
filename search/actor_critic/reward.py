"""Rewards of AMC (He et al., arXiv 1802.03494): by the score alone, or by error and latency together."""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum, log1p
from typing import Literal, TypeAlias

from search.errors import InvalidInput
from search.evaluation import Evaluation, Status
from search.metrics import base_metric
from search.problem import Problem

RewardName: TypeAlias = Literal["resource_constrained", "accuracy_guaranteed"]

_US = 1000.0  # microseconds in a millisecond


class Reward:
    """Reward of an evaluation: the objective, or -error * log(latency).

    The paper's second reward has the logarithm of the FLOPs. Here it is log(1 + latency in microseconds), which is
    positive, so that a lower error always means a higher reward. Latencies of several devices are added.
    Raises: InvalidInput if the second reward is wanted and no latency is estimated.
    """

    def __init__(self, problem: Problem, name: RewardName) -> None:
        self._problem = problem
        self._by_latency = name == "accuracy_guaranteed"
        if self._by_latency and not _latencies({**problem.original, **problem.terms}):
            raise InvalidInput("settings.reward", name, "needs a device, because this reward depends on the latency")

    def of(self, evaluation: Evaluation) -> float | None:
        """Return the reward; None if the evaluation has not completed or lacks a metric."""
        metrics = evaluation.metrics
        if evaluation.status is not Status.COMPLETED or self._problem.objective.metric not in metrics:
            return None
        if not self._by_latency:
            return self._problem.objective.utility(metrics)
        latencies = _latencies(metrics)
        if self._problem.deciding not in metrics or not latencies:
            return None
        error = 1.0 - metrics[self._problem.deciding]
        return -error * log1p(_US * fsum(metrics[key] for key in latencies))


def _latencies(metrics: Mapping[str, object]) -> list[str]:
    return sorted(key for key in metrics if base_metric(key) == "latency_ms")
