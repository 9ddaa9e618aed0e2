"""Fronts of a job: the evaluations that no other evaluation beats in both the objective and the latency. A job has a
front of each of its devices (`on_device`), and one of all devices together.

Fronts are computed from recorded evaluations, so that the same function serves the live front and the question "what if
the limit were 4 ms?". Filters change which evaluations are compared, but never the measured values. Only evaluations of
the search take part. Finalists are trained (F4) and measured whole (F5), so their score and latency cannot be compared
with the untrained score and predicted latency of candidates. For the same reason, full training runs that a search
asked for (F4) are compared only with each other, and proxies (F2) only with proxies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from search.metric import Goal, Metric
from search.metrics import METRICS, latency_metric
from search.problem import ACCURACY
from search.ranking.pareto import front
from service.errors import InvalidInput


class Judged(Protocol):
    """The values of an evaluation that a front needs."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def fidelity(self) -> str: ...
    @property
    def searched(self) -> bool: ...
    @property
    def metrics(self) -> Mapping[str, Any]: ...


def deciding(request: Mapping[str, Any]) -> str:
    """Return the metric that ranks candidates and decides the verdict. Requests from older versions do not name a
    metric; their metric is accuracy.
    """
    return str(request.get("metric", ACCURACY))


def on_device(request: Mapping[str, Any], device: str) -> Mapping[str, Any]:
    """Return the request with the target on this device alone, named by id or name; its front is the device's own.

    Raises:
        InvalidInput: no target of the job is on this device.
    """
    targets = [each for each in request["targets"] if device in (each["device"], each["device_name"])]
    if not targets:
        known = ", ".join(each["device_name"] for each in request["targets"]) or "none"
        raise InvalidInput("device", device, f"is no target of this job; its devices: {known}")
    return {**request, "targets": targets}


def axes(request: Mapping[str, Any]) -> Sequence[tuple[str, Goal]]:
    """Return the metrics of a job's front: its score, then each target's latency, then the objective.

    If the objective is the score and there is no target, latency is replaced by the metric whose row in the table names
    the job's methods.
    """
    metric, goal = request["objective"]["metric"], request["objective"]["goal"]
    axes: dict[str, Goal] = {
        deciding(request): "max",
        **{latency_metric(each["device"]): "min" for each in request["targets"]},
    }
    if metric != "latency_ms":
        axes.setdefault(metric, goal)
    if len(axes) == 1:
        cost = _in_place_of_latency([item["name"] for item in request.get("methods", ())])
        axes[cost.name] = cost.goal
    return list(axes.items())


def _in_place_of_latency(methods: Sequence[str]) -> Metric:
    rows = [each for each in METRICS.values() if each.axis_for is not None]
    return [each for each in rows if not each.axis_for or set(methods).intersection(each.axis_for)][-1]


@dataclass(frozen=True)
class RunningFront:
    """The front while evaluations come in. Each new evaluation is compared only with the front, not with all earlier
    evaluations.

    This is enough because, if B beats A and C beats B, then C also beats A. For the evaluations on the front, `points`
    maps fidelity -> id -> values on the axes.
    """

    axes: Sequence[tuple[str, Goal]]
    points: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)

    @property
    def ids(self) -> frozenset[str]:
        """Ids of the evaluations on the front."""
        return frozenset(name for points in self.points.values() for name in points)

    def plus(self, evaluations: Iterable[Judged]) -> RunningFront:
        """Return the front with these evaluations added; evaluations that lack one of the metrics are ignored."""
        points = {fidelity: {**known} for fidelity, known in self.points.items()}
        for each in evaluations:
            if each.status == "completed" and each.searched and all(key in each.metrics for key, _ in self.axes):
                numbers = tuple(float(each.metrics[key]) for key, _ in self.axes)
                points.setdefault(each.fidelity, {})[each.id] = numbers
        return replace(self, points={fidelity: self._front(of_it) for fidelity, of_it in points.items()})

    def _front(self, points: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        ids = list(points)
        kept = front(np.array([points[name] for name in ids]), [goal for _, goal in self.axes])
        return {ids[index]: points[ids[index]] for index in kept}


def front_of(evaluations: Iterable[Judged], request: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids of the evaluations on the front; evaluations that lack one of the front's metrics are ignored."""
    return RunningFront(axes(request)).plus(evaluations).ids


def under(
    evaluations: Iterable[Judged],
    request: Mapping[str, Any],
    *,
    max_latency_ms: float | None,
    min_score: float | None,
) -> Sequence[Judged]:
    """Return the evaluations that would meet these limits on every target's device."""
    latencies = [latency_metric(item["device"]) for item in request["targets"]]
    found = [each for each in evaluations if each.status == "completed" and each.searched]
    if max_latency_ms is not None:
        found = [e for e in found if all(e.metrics.get(key, np.inf) <= max_latency_ms for key in latencies)]
    if min_score is not None:
        found = [e for e in found if e.metrics.get(deciding(request), -np.inf) >= min_score]
    return found
