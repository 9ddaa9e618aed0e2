"""The verify phase: judges the finalists, then smaller neighbours and the uncut network if these may do better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workers.judging.judged import Judged, Role, best_of, judged, nearest_of
from workers.judging.neighbours import NEIGHBOURS, neighbour
from workers.phases.search import Result
from workers.phases.train import Taught
from workers.running import memos
from workers.running.job_run import JobRun
from workers.training.endpoints import ORIGIN, UNCHANGED, unchanged
from workers.training.trained import Trained, finalist_name


def verify(run: JobRun, result: Result, taught: Taught) -> tuple[Judged, ...]:
    """Judge the finalists; if no finalist meets the limits, judge smaller neighbours and the uncut network too.

    Raises:
        DeviceOffline, MeasurementFailed: raised by the ports.
        Halted: the user paused or cancelled the job.
    """
    verdicts = _judged(run, result, taught, taught.finalists, 0, "finalist")
    for attempt in range(1, NEIGHBOURS + 1):
        trained = _neighbour(run, result, taught, verdicts, attempt)
        if trained is None:
            break
        more = _judged(run, result, taught, [trained], attempt, "neighbour")
        if not more:  # a device refuses it, and would refuse the next one, which would be the same
            break
        verdicts += more
    return verdicts + _uncut(run, result, taught, verdicts)


def _judged(
    run: JobRun, result: Result, taught: Taught, finalists: Sequence[Trained], attempt: int, role: Role
) -> tuple[Judged, ...]:
    give_up = taught.trainer.given_up.__setitem__
    return judged(run.context, run.inputs, result.profile, taught.control, finalists, give_up, attempt, role)


def _neighbour(run: JobRun, result: Result, taught: Taught, verdicts: Sequence[Judged], attempt: int) -> Trained | None:
    """Train a smaller network than the nearest finalist, if this finalist's only fault is a latency a little too
    high.
    """
    wanted = run.context.once(
        memos.neighbour(attempt), lambda: neighbour(run.context, result.problem, verdicts, attempt)
    )
    taught.trainer.ahead(wanted)
    return taught.trainer.finalist(wanted[0].strategy, wanted[0].evaluation) if wanted else None


def _uncut(run: JobRun, result: Result, taught: Taught, verdicts: Sequence[Judged]) -> tuple[Judged, ...]:
    """Judge the control as the uncut network, if no finalist meets the limits and the nearest finalist has lost
    accuracy.

    A finalist that has lost too much accuracy is not a solution, and the uncut network may be nearer to the limits.
    """
    nearest = nearest_of(verdicts)
    known = [each.trained.candidate_id for each in verdicts]
    if nearest is None or best_of(verdicts) is not None or nearest.only_slow or UNCHANGED in known:
        return ()
    control = taught.control
    if nearest.trained.score >= control.score:
        return ()
    corner = unchanged(result.problem, result.profile.builder).evaluation
    values, predicted = corner.candidate.values, corner.metrics
    name = finalist_name(UNCHANGED)
    uncut = replace(control, name=name, candidate_id=UNCHANGED, strategy=ORIGIN, values=values, predicted=predicted)
    return _judged(run, result, taught, [uncut], NEIGHBOURS + 1, "uncut")
