"""The trial: times the best candidates of a search as whole networks before anything is trained.

Latency does not depend on weights, so a candidate's structure can be timed in seconds, while its training takes
minutes. Each round times the candidates that would be trained next and corrects the estimates by what it finds: a timed
candidate counts with its measured latency, and the line of its setting is fitted again with the new networks. Rounds
end once every candidate that would be trained has been timed. If none of them is within the limits, the predictions
misled the search: it goes on once, with corrected predictions, and its new candidates are timed like the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hw_profiles.tables.calibration import SESSION_NOISE
from search.knowledge import values_key
from search.metrics import latency_metric
from search.problem import Constraint, Problem
from search.space import Values
from workers.phases.search import Result, paid
from workers.problem.aims import every_aim
from workers.profiling.timed_candidates import TimedCandidates, time_candidates
from workers.profiling.timed_device import Profile
from workers.progress import Evaluated
from workers.running.job_run import JobRun
from workers.training.choosing import chosen_for_every_aim

ROUNDS = 4
SPARE = 3
"""Number of candidates that a round times besides the finalists, to replace those that turn out too slow."""


def trial(run: JobRun, result: Result, search_on: Callable[[Result, Profile], Result]) -> Result:
    """Return the result with corrected estimates, in which only timed candidates can be chosen.

    Args:
        search_on: continues the search under a corrected profile, with what is left of its budget.

    Raises:
        DeviceOffline, MeasurementFailed: raised by the ports.
        JobFailed, Halted: raised by `search_on`.
    """
    if not result.profile.devices or not result.evaluated:
        return result
    corrected, found = _rounds(run, result, TimedCandidates(result.profile), 0)
    if not _any_within(corrected, found) and _goes_on(run, result):
        further = search_on(replace(result, make=_tightened(result, found)), found.profile)
        result = replace(further, make=result.make)
        corrected, found = _rounds(run, result, replace(found, profile=result.profile), ROUNDS)
    eligible = found.timed(result.evaluated) or found.left(result.evaluated)
    return replace(corrected, profile=found.profile, eligible=eligible)


def _rounds(run: JobRun, result: Result, found: TimedCandidates, number: int) -> tuple[Result, TimedCandidates]:
    """Time candidates until all that would be trained are timed, for at most ROUNDS rounds; `number` is the number of
    the first.
    """
    count = run.context.plan.budget.finalists
    corrected = replace(result, problem=_problem(result, found))
    for turn in range(number, number + ROUNDS):
        best = chosen_for_every_aim(found.left(result.evaluated), corrected.problem, count + SPARE)
        if not found.untimed(best[:count]):
            break
        found = time_candidates(run, found, found.untimed(best), turn)
        corrected = replace(result, problem=_problem(result, found))
    _report(run, result, corrected.problem, found.timed(result.evaluated))
    return corrected, found


def _tightened(result: Result, found: TimedCandidates) -> Callable[[Profile], Problem]:
    """Return a function that makes a problem with tighter limits on latency: by the factor by which the timed
    candidates are slower than even the corrected lines say (median).

    The lines are fitted to networks of all sizes, but the search needs them to be right at the limit.
    """
    points = [each.evaluation.candidate.values for each in found.timed(result.evaluated)]
    if not points:
        return result.make
    lines = result.make(found.profile).estimate(points)
    factors = {
        metric: max(1.0, float(np.median(measured_ms / lines[metric])))
        for metric, measured_ms in found.columns(points).items()
    }

    def make(profile: Profile) -> Problem:
        problem = result.make(profile)
        tighter = (replace(each, bound=each.bound / factors.get(each.metric, 1.0)) for each in problem.constraints)
        return replace(problem, constraints=tuple(tighter))

    return make


def _goes_on(run: JobRun, result: Result) -> bool:
    """Tell what happens now that no timed candidate is within the limits; return True if the search can go on."""
    budget = run.context.plan.budget.evaluations
    left = budget - paid(result.evaluated)
    if left <= 0:
        run.context.say(
            f"No timed candidate is within the limits, and all {budget} evaluations are used up.", "warning"
        )
        return False
    run.context.say(
        "No timed candidate is within the limits; the search goes on with corrected predictions and the "
        f"{left} evaluations that are left."
    )
    return True


def _any_within(corrected: Result, found: TimedCandidates) -> bool:
    """True if, for every aim, a timed candidate is within its limits."""
    points = [each.evaluation.candidate.values for each in found.timed(corrected.evaluated)]
    return bool(points) and all((aim.violations(points) == 0.0).any() for aim in every_aim(corrected.problem))


def _problem(result: Result, found: TimedCandidates) -> Problem:
    """Return the problem with corrected lines and measured latencies.

    A measured latency needs no margin for prediction errors, only one for the noise between sessions.
    """
    corrected = result.make(found.profile)
    bounds = {
        latency_metric(timed.target.device_id): timed.allowed_ms * (1.0 - SESSION_NOISE)
        for timed in found.profile.devices
    }
    constraints = tuple(
        Constraint(each.metric, bounds.get(each.metric, each.bound), each.sense) for each in corrected.constraints
    )

    def estimate(batch: Sequence[Values]) -> Mapping[str, NDArray[np.float64]]:
        columns = {metric: np.array(column, dtype=float) for metric, column in corrected.estimate(batch).items()}
        for row, values in enumerate(batch):
            for metric, latency_ms in found.latency_ms.get(values_key(values), {}).items():
                columns[metric][row] = latency_ms
        return columns

    return replace(corrected, estimate=estimate, constraints=constraints)


def _report(run: JobRun, result: Result, corrected: Problem, timed: Sequence[Evaluated]) -> None:
    """Tell how many timed candidates are within the limits, and how far off their predictions were."""
    points = list(
        {values_key(each.evaluation.candidate.values): each.evaluation.candidate.values for each in timed}.values()
    )
    if not points:
        return
    within = int((corrected.violations(points) == 0.0).sum())
    before, after = result.problem.estimate(points), corrected.estimate(points)
    for device in result.profile.devices:
        metric = latency_metric(device.target.device_id)
        off = float(np.median(before[metric] / after[metric])) - 1.0
        run.context.say(
            f"{device.target.device_name}: timed {len(points)} candidates as whole networks before training; "
            f"{within} are within the limits. Their predictions were off by {off:+.1%} (median)."
        )
