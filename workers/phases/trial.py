"""The trial: times the best candidates of a search as whole networks before anything is trained.

Latency does not depend on weights, so a candidate's structure can be timed in seconds, while its training takes
minutes. Each round times the candidates that would be trained next and corrects the estimates by what it finds: a timed
candidate counts with its measured latency, and the line of its setting is fitted again with the new networks. Rounds
end once every candidate that would be trained has been timed. If none of them is within the limits, the predictions
misled the search: it goes on once, with corrected predictions, and its new candidates are timed like the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from compress.network import Network
from hw_profiles.tables.calibration import SESSION_NOISE
from hw_profiles.timing.protocol import BurstProtocol, Sample, statistic_us
from search.knowledge import values_key
from search.metrics import latency_metric
from search.problem import Constraint, Problem
from search.space import Values
from workers.phases.search import Result
from workers.problem.aims import every_aim
from workers.profiling.refusals import demand, ran, refused
from workers.profiling.time_original import UPLOADED
from workers.profiling.timed_device import Profile, TimedDevice, Whole
from workers.progress import Evaluated
from workers.running.device_requests import measured
from workers.running.job_run import JobRun
from workers.training.choosing import chosen_for_every_aim

ROUNDS = 4
SPARE = 3
"""Number of candidates that a round times besides the finalists, to replace those that turn out too slow."""
PROTOCOL = BurstProtocol(min_rounds=20)


@dataclass(frozen=True)
class Found:
    """The measured latencies in milliseconds, as values_key -> latency metric -> latency, and the profile whose lines
    are fitted on them too. `refused` has the values_key of each candidate that a device refused.
    """

    profile: Profile
    latency_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()

    def left(self, evaluated: Sequence[Evaluated]) -> list[Evaluated]:
        """Return the evaluations of candidates that no device refused."""
        return [each for each in evaluated if _key(each) not in self.refused]

    def timed(self, evaluated: Sequence[Evaluated]) -> list[Evaluated]:
        """Return the evaluations of candidates that were timed on every device."""
        return [each for each in self.left(evaluated) if _key(each) in self.latency_ms]


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
    corrected, found = _rounds(run, result, Found(result.profile), 0)
    if not _any_within(corrected, found):
        run.context.say(_goes_on(run, result))
        result = search_on(replace(result, make=_tightened(result, found)), found.profile)
        corrected, found = _rounds(run, result, replace(found, profile=result.profile), ROUNDS)
    eligible = found.timed(result.evaluated) or found.left(result.evaluated)
    return replace(corrected, profile=found.profile, eligible=eligible)


def _rounds(run: JobRun, result: Result, found: Found, number: int) -> tuple[Result, Found]:
    """Time candidates until all that would be trained are timed, for at most ROUNDS rounds; `number` is the number of
    the first.
    """
    count = run.context.plan.budget.finalists
    corrected = replace(result, problem=_problem(result, found))
    for turn in range(number, number + ROUNDS):
        best = chosen_for_every_aim(found.left(result.evaluated), corrected.problem, count + SPARE)
        if all(_key(each) in found.latency_ms for each in best[:count]):
            break
        untimed = [each for each in best if _key(each) not in found.latency_ms]
        found = _timed(run, found, untimed, turn)
        corrected = replace(result, problem=_problem(result, found))
    _report(run, result, corrected.problem, found.timed(result.evaluated))
    return corrected, found


def _tightened(result: Result, found: Found) -> Callable[[Profile], Problem]:
    """Return a function that makes a problem with tighter limits on latency: by the factor by which the timed
    candidates are slower than even the corrected lines say (median).

    The lines are fitted to networks of all sizes, but the search needs them to be right at the limit.
    """
    timed = found.timed(result.evaluated)
    points = [each.evaluation.candidate.values for each in timed]
    lines = result.make(found.profile).estimate(points) if points else {}
    factors: dict[str, float] = {}
    for metric in {metric for each in timed for metric in found.latency_ms[_key(each)]}:
        measured_ms = np.array([found.latency_ms[_key(each)][metric] for each in timed])
        factors[metric] = max(1.0, float(np.median(measured_ms / lines[metric])))

    def make(profile: Profile) -> Problem:
        problem = result.make(profile)
        tighter = (replace(each, bound=each.bound / factors.get(each.metric, 1.0)) for each in problem.constraints)
        return replace(problem, constraints=tuple(tighter))

    return make


def _goes_on(run: JobRun, result: Result) -> str:
    """Return a sentence about what is left of the budget now that no timed candidate is within the limits."""
    budget = run.context.plan.budget.evaluations
    left = budget - sum(not each.cached for each in result.evaluated)
    if left > 0:
        return (
            "No timed candidate is within the limits; the search goes on with corrected predictions and the "
            f"{left} evaluations that are left."
        )
    return f"No timed candidate is within the limits, and all {budget} evaluations are used up."


def _any_within(corrected: Result, found: Found) -> bool:
    """True if, for every aim, a timed candidate is within its limits."""
    points = [each.evaluation.candidate.values for each in found.timed(corrected.evaluated)]
    return bool(points) and all((aim.violations(points) == 0.0).any() for aim in every_aim(corrected.problem))


def _key(each: Evaluated) -> str:
    return values_key(each.evaluation.candidate.values)


def _name(each: Evaluated) -> str:
    """Return a name made from the values, so that a restart never takes the timing of another candidate for its own."""
    return f"candidate-{hashlib.sha256(_key(each).encode()).hexdigest()[:12]}"


def _timed(run: JobRun, found: Found, untimed: Sequence[Evaluated], number: int) -> Found:
    """Time these candidates on every device."""
    kernels = found.profile.builder.kernels
    points = {_name(each): each.evaluation.candidate.values for each in untimed}
    networks = {name: kernels.rewritten(values) for name, values in points.items()}
    latency_ms: dict[str, dict[str, float]] = {values_key(values): {} for values in points.values()}
    devices, gone = [], set[str]()
    for timed in found.profile.devices:
        samples = _samples(run, timed, networks, number)
        gone |= {values_key(values) for name, values in points.items() if name not in samples}
        # The speed of the machine changes between sessions; the uploaded network tells by how much.
        speed = _quiet_us(timed.original) / _quiet_us(samples[UPLOADED])
        relative = timed.target.max_latency_ratio is not None
        metric = latency_metric(timed.target.device_id)
        known = {name: values for name, values in points.items() if name in samples}
        for name, values in known.items():
            resting_ms = timed.resting_ms(samples[name])
            latency_ms[values_key(values)][metric] = resting_ms * speed if relative else resting_ms
        devices.append(_with_wholes(found.profile, timed, known, networks, samples, speed))
    profile = replace(found.profile, devices=tuple(devices))
    return Found(profile, {**found.latency_ms, **latency_ms}, found.refused | gone)


def _samples(run: JobRun, timed: TimedDevice, networks: Mapping[str, Network], number: int) -> Mapping[str, Sample]:
    """Return the samples of the uploaded network and of the networks that the device does not refuse."""
    target, asked = timed.target, dict[str, Network | bytes]({UPLOADED: run.inputs.network, **networks})
    answers = measured(run.context, run.inputs, f"trial-{number}", target.device_id, asked, PROTOCOL)
    demand(target.device_id, answers, UPLOADED)
    for failure in refused(answers).values():
        run.context.say(f"{target.device_name} refuses a candidate, which is not trained: {failure.reason}.", "warning")
    return ran(answers)


def _quiet_us(sample: Sample) -> float:
    return statistic_us(sample, "quiet")


def _with_wholes(
    profile: Profile,
    timed: TimedDevice,
    points: Mapping[str, Values],
    networks: Mapping[str, Network],
    samples: Mapping[str, Sample],
    speed: float,
) -> TimedDevice:
    """Return the device with the timed networks among those that its lines are fitted on."""
    kernels, runtime = profile.builder.kernels, timed.table.device.runtime
    wholes = [list(known) for known in timed.wholes]
    for name, values in points.items():
        ops = kernels.ops(networks[name], runtime)
        wholes[kernels.setting(values)].append(Whole(ops, speed * _quiet_us(samples[name])))
    return replace(timed, wholes=tuple(map(tuple, wholes)))


def _problem(result: Result, found: Found) -> Problem:
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
    points = list({_key(each): each.evaluation.candidate.values for each in timed}.values())
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
