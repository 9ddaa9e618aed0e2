"""A job's result as text for a terminal: the original network compared with the compressed network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from service.verbs.terminal import print_fields, print_table

if TYPE_CHECKING:
    from netlathe import Failure, Job, Latency, Layer, Summary
    from search.metric import Metric

SLOTS = ("original", "control", "best", "nearest")


def print_job(job: Job) -> None:
    """Print a job's state, its verdict and the table of its networks."""
    failure = job.failure
    print_fields(
        {
            "job": f"{job.name} ({job.id})",
            "state": job.state + (f", {job.phase} {job.progress.fraction:.0%}" if job.state == "running" else ""),
            "verdict": job.verdict,
            "wanted": _wanted(job),
            "failure": None if failure is None else _failure(failure),
            "waiting": _waiting(job),
            "left": None if job.eta_s is None or job.finished else f"{math.ceil(job.eta_s)} s of this phase",
            "done": f"{job.evaluations_done} evaluation{'' if job.evaluations_done == 1 else 's'}",
        }
    )
    for warning in job.warnings:
        typer.echo(f"warning  {warning}")
    if any(getattr(job, slot) is not None for slot in SLOTS):
        typer.echo()
        print_networks(job)


def _waiting(job: Job) -> str | None:
    if job.waiting_for is None:
        return job.queued_behind
    reason = job.waiting_for.get("reason")
    return f"for {_name(job, job.waiting_for.get('device'))}" + (f": {reason}" if reason else "")


def _failure(failure: Failure) -> str:
    field = "" if failure.field is None else f" ({failure.field})"
    return f"{failure.code}{field}: {failure.detail}"


def print_networks(job: Job) -> None:
    """Print one row per network: score, predicted and measured latency on each device, size. The last rows are the
    results on each device of a job with several devices.
    """
    found = [(_label(job, slot), summary) for slot in SLOTS if (summary := getattr(job, slot)) is not None]
    found += [(f"{_name(job, each.device)}: {each.verdict}", each.network) for each in job.devices or ()]
    devices = list(dict.fromkeys(device for _, summary in found for device in summary.latency_ms))
    names = device_names(job)
    columns = ["network", heading(job), "test", *(names.get(device, device) for device in devices)]
    counts = counts_of([summary for _, summary in found])
    rows = [[*_row(name, summary, job.metric, devices), *counted(summary, counts)] for name, summary in found]
    print_table([*columns, *(metric.heading for metric in counts)], rows)


def print_layers(job: Job, layers: Sequence[Layer]) -> None:
    """Print one row per layer of the job's result: its width and its predicted times before and after, and why."""
    devices = list(dict.fromkeys(device for row in layers for device in row.latency_ms))
    columns = ["layer", "width", *(f"{_name(job, device)}, ms" for device in devices), "why"]
    rows = [
        [row.layer, _change(row.before, row.after), *(_times(row.latency_ms.get(each)) for each in devices), row.reason]
        for row in layers
    ]
    print_table(columns, rows)


def _change(before: object, after: object) -> str | None:
    return None if before is None else f"{before}" if before == after else f"{before} -> {after}"


def _times(pair: Sequence[float] | None) -> str | None:
    return None if pair is None else " -> ".join(f"{time_ms:.3f}" for time_ms in pair)


def _label(job: Job, slot: str) -> str:
    """Name a row; the best of a search that was not finished has no file."""
    unfinished = slot == "best" and job.state in ("failed", "cancelled")
    return "best of the search, not verified, no file" if unfinished else slot


def counts_of(summaries: Iterable[Summary]) -> Sequence[Metric]:
    """Return the counted metrics that need a column in a table of these networks."""
    from search.metrics import shown_counts

    return shown_counts([_counts(summary) for summary in summaries])


def counted(summary: Summary, counts: Iterable[Metric]) -> list[str | None]:
    """Return one cell per metric. Cells have no units, because the heading names them."""
    known = _counts(summary)
    return [f"{known[metric.name]:{metric.format}}" if metric.name in known else None for metric in counts]


def _counts(summary: Summary) -> Mapping[str, float]:
    """Return a network's counted metrics; servers of earlier versions send these metrics only as separate fields."""
    from search.metrics import COUNTED

    fields = {metric.name: getattr(summary, metric.name, None) for metric in COUNTED}
    return {**{name: value for name, value in fields.items() if value is not None}, **summary.metrics}


def _wanted(job: Job) -> str | None:
    """Describe the objective; return None if the objective is the score of the job's task."""
    objective = job.raw.get("objective") or {}
    metric = objective.get("metric", job.metric)
    return None if metric == job.metric else f"{'least' if objective.get('goal') == 'min' else 'most'} {metric}"


def device_names(job: Job) -> Mapping[str, str]:
    """Return the names of the job's devices by id, for the devices that the server sent."""
    targets: Sequence[Mapping[str, Any]] = job.raw.get("targets") or ()
    return {str(target.get("device")): str(target.get("device_name") or target.get("device")) for target in targets}


def _name(job: Job, device: object) -> str:
    return device_names(job).get(str(device), str(device))


def _row(slot: str, summary: Summary, metric: str, devices: Sequence[str]) -> list[str | None]:
    test = summary.score(f"test_{metric}")
    return [
        slot if summary.strategy is None else f"{slot} ({summary.strategy})",
        score(summary, metric),
        None if test is None else f"{test:.4f}",
        *(latency(summary.latency_ms.get(device)) for device in devices),
    ]


def heading(job: Job) -> str:
    """Return the heading of the job's score, or the metric's name if the metric is not known here."""
    from search.metrics import row_of

    return row_of(job.metric).heading


def score(summary: Summary, metric: str) -> str | None:
    """Format a score: `0.9750`, with `drop +0.20 points [-0.19, +0.59]` against the control if the drop was measured. A
    positive drop is a loss.
    """
    found, lost = summary.score(metric), summary.drop(metric)
    if found is None:
        return None
    if lost is None:
        return f"{found:.4f}"
    mean, low, high = (f"{100 * share:+z.2f}" for share in (lost.mean, lost.low, lost.high))
    return f"{found:.4f}, drop {mean} points [{low}, {high}]"


def latency(found: Latency | None) -> str | None:
    """Format a latency: `1.234 ms (predicted 1.210 [1.150, 1.270])`, or the parts of this that are known."""
    if found is None:
        return None
    interval = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    predicted = "" if found.predicted is None else f"predicted {found.predicted:.3f}{interval}"
    if found.measured is None:
        return f"{predicted} ms" if predicted else None
    return f"{found.measured:.3f} ms" + (f" ({predicted})" if predicted else "")
