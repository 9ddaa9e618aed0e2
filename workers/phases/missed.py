"""Early ends: if a job's limits are far out of reach, the job ends as missed before any training, and its result is the
nearest network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search.metric import Metric
from search.metrics import base_metric, device_of, row_of
from search.problem import Problem
from search.space import Values
from workers.phases.package import Findings, Untrained, package
from workers.phases.search import Result
from workers.ports import Outcome
from workers.profiling.timed_device import Profile, TimedDevice
from workers.progress import Evaluated
from workers.reporting.layer_cut import Curves
from workers.reporting.layers import LayerRow, LayerTable
from workers.reporting.node_times import NodeTimes
from workers.reporting.summary import predicted_summary, score_fields, summary
from workers.running import memos
from workers.running.job_run import JobRun
from workers.training.endpoints import ORIGIN, REACH, UNCHANGED, out_of_reach


def under_the_floor(run: JobRun, found: Profile) -> Outcome | None:
    """End the job if the limit of every target is below the smallest latency there; warn if only those of some are."""
    reasons = [_floor_reason(timed) for timed in found.devices if found.under_the_floor(timed)]
    if reasons and not found.in_reach:
        return _missed(run, found, " ".join(reasons), _smallest_row(run.context.plan.metric_row, found), {})
    for reason in reasons:
        run.context.warn(f"{reason} The job goes on for its other devices.")
    return None


def nothing_near(run: JobRun, result: Result) -> Outcome | None:
    """End the job if everything that the search found, and the ends of its space, are far from the limits of all
    devices together and of each device alone.
    """
    found, problem, evaluated = result.profile, result.problem, result.evaluated
    nearest = run.context.once(
        memos.OUT_OF_REACH, lambda: out_of_reach(problem, found.builder, found.smallest, evaluated)
    )
    if not nearest:
        return None
    row = _untrained_row(run.context.plan.metric_row, found, nearest[0])
    return _missed(run, found, _far_reason(result, nearest[0]), row, problem.statistics["sensitivity"], evaluated)


def _floor_reason(timed: TimedDevice) -> str:
    return (
        f"{timed.target.device_name}: the limit is {timed.limit_ms:.3f} ms, but the smallest network that "
        f"the methods can make takes {timed.resting_ms(timed.smallest):.3f} ms."
    )


def _smallest_row(metric: Metric, found: Profile) -> Mapping[str, Any]:
    metrics = found.builder.counts(found.smallest)
    latency = {each.target.device_id: {"measured": each.resting_ms(each.smallest)} for each in found.devices}
    return summary(score_fields(metric), latency_ms=latency, counts=metrics, values=dict(found.smallest))


def _far_reason(result: Result, nearest: Evaluated) -> str:
    candidate = nearest.evaluation.candidate
    others = [each.evaluation.candidate.values for each in result.evaluated]
    seen = [candidate.values, result.profile.smallest, *others]
    far = "; ".join(lowest(result.problem, seen)) or "none meets all of them together"
    return (
        f"No network found is predicted to come within {REACH:.0%} of the limits: {far}. "
        f"The nearest useful one is {candidate.id}. Nothing was trained."
    )


def lowest(problem: Problem, seen: Sequence[Values]) -> Iterator[str]:
    """Yield each upper limit that none of these values meets, with the lowest value of its metric among them."""
    estimates = problem.estimate(seen)
    for constraint in problem.constraints:
        found = float(min(estimates[constraint.metric]))
        if constraint.sense == "max" and found > constraint.bound:
            row, device = row_of(base_metric(constraint.metric)), device_of(constraint.metric)
            where = f" on {device}" if device else ""
            yield f"the limit on {row.heading}{where} is {constraint.bound:.6g}, and the lowest found is {found:.6g}"


def _untrained_row(metric: Metric, found: Profile, nearest: Evaluated) -> Mapping[str, Any]:
    candidate = nearest.evaluation.candidate
    row = {**predicted_summary(metric, nearest), "values": dict(candidate.values)}
    if candidate.origin == ORIGIN:  # not evaluated by the search
        row["evaluation_id"] = None
    if candidate.id == UNCHANGED:
        row[metric.name] = found.original[metric.name]
    return row


def _missed(
    run: JobRun,
    found: Profile,
    reason: str,
    nearest: Mapping[str, Any],
    curves: Curves,
    evaluated: Sequence[Evaluated] = (),
) -> Outcome:
    run.context.say(reason, "warning")
    run.clear("best")
    run.summarise("nearest", nearest)
    layers = _layers(run.context.plan.metric_row, found, nearest["values"], curves)
    untrained = Untrained(nearest["evaluation_id"], nearest["strategy"], layers)
    return package(run, found, Findings("missed", reason, run.summaries, evaluated, untrained=untrained))


def _layers(metric: Metric, found: Profile, values: Values, curves: Curves) -> Sequence[LayerRow]:
    """Return the rows of a network that was predicted but not judged."""
    builder = found.builder
    levels = builder.space.levels_of([values])
    predicted_ms = [float(builder.latency(timed.device).latency_ms(levels)[0]) for timed in found.devices]
    times = [NodeTimes(builder, timed, values, ms) for timed, ms in zip(found.devices, predicted_ms, strict=True)]
    return LayerTable(builder, times, curves, values, metric).rows()
