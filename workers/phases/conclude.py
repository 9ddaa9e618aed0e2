"""Concludes a job: chooses the result among the finalists, collects the warnings, and fills the result table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.metric import Metric
from search.metrics import METRICS
from workers.errors import JobFailed
from workers.judging.control_behind import said_of_control
from workers.judging.judged import Judged, best_of, nearest_of
from workers.judging.neighbours import NEIGHBOURS, lasts_for, worth_another
from workers.judging.on_device import OnDevice, on_each_device
from workers.judging.ruined import said_of_ruined
from workers.phases.package import Findings
from workers.phases.search import Result, cut_short, noted
from workers.phases.train import Taught
from workers.ports import Verdict
from workers.profiling.time_original import original_scores
from workers.profiling.timed_device import Profile
from workers.progress import Slot
from workers.reporting.layers import LayerRow, LayerTable
from workers.reporting.node_times import NodeTimes
from workers.reporting.summary import COUNTS, drop_field, interval_field, score_fields, summary, training_fields
from workers.running import memos
from workers.running.context import Context
from workers.running.job_run import JobRun
from workers.training.common_epochs import shortened
from workers.training.trained import GivenUp, Trained

ALIKE = 0.97
"""A result with at least this share of the original's counts is not called smaller, because folding batch norms alone
saves a little.
"""
_SLOTS: Mapping[Verdict, tuple[Slot, Slot]] = {"met": ("best", "nearest"), "missed": ("nearest", "best")}
"""For each verdict, the slot that is filled and the slot that is left empty."""


def original_row(
    metric: Metric,
    found: Profile,
    beside: Mapping[str, Mapping[str, float]] | None = None,
    test: float | None = None,
) -> dict[str, Any]:
    """Return the row of the original. `beside` has the original's latencies in the session in which the finalists were
    judged, once these are known.
    """
    first = {timed.target.device_id: {"measured": timed.resting_ms(timed.original)} for timed in found.devices}
    return summary(
        score_fields(metric, found.original[metric.name], test),
        latency_ms=beside or first,
        counts=found.original,
    )


def conclude(run: JobRun, result: Result, taught: Taught, verdicts: Sequence[Judged]) -> Findings:
    """Choose the result among the judged networks, show it, and collect the report's contents.

    Raises:
        JobFailed: another file was chosen earlier, and its test accuracy has already been read.
    """
    chosen = best_of(verdicts)
    verdict: Verdict = "met" if chosen is not None else "missed"
    shown = chosen or nearest_of(verdicts)
    assert shown is not None, "a job that came this far has at least one finalist"
    test = _test_scores(run, shown.trained)
    beside = {timed.device_id: {"measured": timed.original_ms} for timed in shown.timed}
    run.summarise("original", original_row(run.context.plan.metric_row, result.profile, beside, test.original))
    slot, other = _SLOTS[verdict]
    run.clear(other)
    run.summarise(slot, _shown(run, shown, test.chosen, len(verdicts)))
    devices = _on_devices(run, result.profile, taught, verdicts, shown, test.chosen)
    reason = "The file itself meets every limit." if shown.met else _broken(shown, devices)
    given_up = taught.trainer.given_up
    ruins = said_of_ruined(taught.control, shown.trained, run.context.plan.metric_row)
    warnings = [*ruins, *_behind(run, taught.control), *_warnings(run.context, result, shown, verdicts, given_up)]
    for warning in warnings:
        run.context.warn(warning)
    layers = {each.trained.name: _layers(run.context, result, each) for each in verdicts}
    return Findings(
        verdict, reason, run.summaries, result.evaluated, verdicts, shown.trained, warnings, given_up, layers, devices
    )


def _on_devices(
    run: JobRun, profile: Profile, taught: Taught, verdicts: Sequence[Judged], shown: Judged, test: float
) -> tuple[OnDevice, ...]:
    """Return the result on each device. Only the one chosen file is scored on the test part."""

    def row(each: Judged) -> Mapping[str, Any]:
        return _shown(run, each, test if each is shown else None, len(verdicts))

    return on_each_device(run.context.plan, run.inputs, profile, taught.control, verdicts, row)


def _broken(shown: Judged, devices: Sequence[OnDevice]) -> str:
    """Say which limits the result misses, and which devices have a network of their own that meets theirs."""
    told = "; ".join(shown.broken) + "."
    met = [f"{each.trained.name} meets those of {each.target.device_name}" for each in devices if each.alone.met]
    return f"{told} No network meets the limits of all devices, but {', and '.join(met)}." if met else told


def _layers(context: Context, result: Result, each: Judged) -> tuple[LayerRow, ...]:
    builder, values = result.profile.builder, each.trained.values
    predicted_ms = {timed.device_id: timed.predicted_ms for timed in each.timed}
    times = [
        NodeTimes(builder, timed, values, predicted_ms[timed.target.device_id]) for timed in result.profile.devices
    ]
    curves = result.problem.statistics["sensitivity"]
    return LayerTable(builder, times, curves, values, context.plan.metric_row).rows()


def _behind(run: JobRun, control: Trained) -> list[str]:
    original = original_scores(run.context, run.inputs)
    lost = run.inputs.task.compare(original, control.scores)
    return said_of_control(original, control, lost, run.context.plan.metric_row)


def _warnings(
    context: Context, result: Result, shown: Judged, verdicts: Sequence[Judged], given_up: Mapping[str, GivenUp]
) -> list[str]:
    return [
        *(f"{doubt}; {_chosen_among(len(verdicts))}." for doubt in shown.doubts),
        *shortened(context),
        *cut_short(context, result.evaluated),
        *noted(context),
        *_out_of_time(context, verdicts, given_up),
        *_without_gain(context, result.profile, shown),
        *_larger(result.profile, shown),
    ]


def _out_of_time(context: Context, verdicts: Sequence[Judged], given_up: Mapping[str, GivenUp]) -> list[str]:
    """Return one sentence for each step after the search that the wall seconds were not enough for."""
    said, wall = [], f"{context.plan.budget.wall_s:g} wall seconds were not enough"
    late = [name for name, each in given_up.items() if each.out_of_time]
    if late:
        said.append(f"{wall} to finish training {', '.join(late)}.")
    tried = sum(each.role == "neighbour" for each in verdicts)
    nearest = worth_another(verdicts)
    if nearest is not None and tried < NEIGHBOURS and not lasts_for(context, nearest):
        said.append(f"{nearest.trained.candidate_id} is a little too slow; {wall} to try a smaller neighbour.")
    return said


def _without_gain(context: Context, found: Profile, shown: Judged) -> list[str]:
    """Return a sentence if the metric to minimise did not shrink, or if no metric did."""
    wanted, counts = context.plan.objective_metric, shown.trained.counts
    if wanted in counts and counts[wanted] >= found.original[wanted]:
        seen, before = (METRICS[wanted].show(value) for value in (counts[wanted], found.original[wanted]))
        return [f"{METRICS[wanted].label}: {seen}, no better than the original's {before}."]
    slower = all(timed.measured_ms >= timed.original_ms for timed in shown.timed)
    if slower and all(counts[name] >= ALIKE * found.original[name] for name in COUNTS if name in counts):
        return ["The result is neither smaller nor faster than the original."]
    return []


def _larger(found: Profile, shown: Judged) -> list[str]:
    """Return a sentence if the file is larger than the upload."""
    made, came = shown.trained.counts["size_bytes"], found.original["size_bytes"]
    if made <= came:
        return []
    return [f"The result is larger than the upload: {made:,.0f} bytes against {came:,.0f}."]


def _test_scores(run: JobRun, chosen: Trained) -> memos.FinalScore:
    """Score the original and the chosen file on the test part; done once, at the end."""
    context, inputs = run.context, run.inputs

    def read() -> memos.FinalScore:
        with context.computing():
            original = inputs.test_score(inputs.network.save())
            return memos.FinalScore(chosen.name, original, inputs.test_score(chosen.model))

    known = context.once(memos.TEST_SCORE, read)
    if known.name != chosen.name:
        detail = f"the test part was already read for {known.name} and must not be read for {chosen.name}"
        raise JobFailed("test_read_twice", "package", detail)
    return known


def _shown(run: JobRun, each: Judged, test: float | None, finalists: int) -> dict[str, Any]:
    metric, scores = run.context.plan.metric_row, each.trained.scores
    return summary(
        score_fields(metric, each.trained.score, test),
        evaluation_id=f"{each.trained.candidate_id}-timed",
        strategy=each.trained.strategy,
        latency_ms={timed.device_id: timed.row() for timed in each.timed},
        counts=each.trained.counts,
        **drop_field(metric, each.drop),
        **interval_field(metric, run.inputs.task.interval(scores), len(scores)),
        **training_fields(each.trained),
        finalists=finalists,
        values=dict(each.trained.values),
    )


def _chosen_among(count: int) -> str:
    """Return a note on the choice: the best of several finalists looks better than it is, because the same images
    judged all of them.
    """
    if count == 1:
        return "it was the only finalist"
    return f"it was chosen among {count} finalists on these very images, which flatters it"
