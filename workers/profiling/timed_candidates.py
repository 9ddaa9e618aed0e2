"""TimedCandidates: candidates of a search that were timed as whole networks, and the lines fitted on them too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from compress.network import Network
from hw_profiles.timing.protocol import BurstProtocol, Sample, statistic_us
from search.knowledge import values_key
from search.metrics import latency_metric
from search.space import Values
from workers.profiling.refusals import demand, ran, refused
from workers.profiling.time_original import UPLOADED
from workers.profiling.timed_device import Profile, TimedDevice, Whole
from workers.progress import Evaluated
from workers.running.device_requests import measured
from workers.running.job_run import JobRun

PROTOCOL = BurstProtocol(min_rounds=20)


@dataclass(frozen=True)
class TimedCandidates:
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

    def columns(self, points: Sequence[Values]) -> dict[str, NDArray[np.float64]]:
        """Return, for each latency metric, the (points,) latencies of timed candidates in milliseconds."""
        rows = [self.latency_ms[values_key(values)] for values in points]
        return {metric: np.array([row[metric] for row in rows]) for metric in (rows[0] if rows else ())}

    def untimed(self, evaluated: Sequence[Evaluated]) -> list[Evaluated]:
        """Return the evaluations of candidates that no device was asked to time."""
        return [each for each in evaluated if _key(each) not in self.latency_ms]


def time_candidates(run: JobRun, found: TimedCandidates, untimed: Sequence[Evaluated], number: int) -> TimedCandidates:
    """Time these candidates on every device; return the findings with theirs. `number` names the session.

    Raises:
        DeviceOffline, MeasurementFailed: raised by the ports.
        Halted: the user paused or cancelled the job.
    """
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
    return TimedCandidates(profile, {**found.latency_ms, **latency_ms}, found.refused | gone)


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


def _key(each: Evaluated) -> str:
    return values_key(each.evaluation.candidate.values)


def _name(each: Evaluated) -> str:
    """Return a name made from the values, so that a restart never takes the timing of another candidate for its own."""
    return f"candidate-{hashlib.sha256(_key(each).encode()).hexdigest()[:12]}"
