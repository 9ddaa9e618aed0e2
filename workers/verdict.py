"""The verify phase: every finalist timed whole beside the original, and judged on what its file really does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.network import Network
from hw_profiles.anchors import session
from hw_profiles.timing import BurstProtocol, Sample, bootstrap_upper, statistic_us
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.metrics import base_metric, latency_metric, parse_limit, parse_limits
from search.problem import Constraint
from workers.accuracy import Drop, drop
from workers.context import Context
from workers.finalists import CONTROL, Trained
from workers.inputs import Inputs
from workers.plan import JobPlan, Target
from workers.profile import SMALLEST, UPLOADED, Profile, TimedDevice
from workers.progress import Evaluated
from workers.searching import JUDGED_AFTER_TRAINING
from workers.timing_room import measured

ROUNDS = 30
"""Of every network in one interleaved run: paired rounds are what ratios are bootstrapped over."""
_PROTOCOL = BurstProtocol(min_rounds=ROUNDS, max_rounds=ROUNDS)
MS = 1e-3


@dataclass(frozen=True)
class Timed:
    """One file on one target, milliseconds in the target's statistic.

    `predicted` is what tables say, at the speed that the machine had in this session, `low` and `high` its
    interval; `measured_high`: the 97.5th bootstrap percentile, which decides; `original`: the uploaded network's.
    `excess`: how far that is over the limit, relative; 0 when the limit is kept.
    """

    device_id: str
    statistic: str
    predicted: float | None
    low: float | None
    high: float | None
    measured: float
    measured_high: float
    quiet: float
    p50: float
    original: float
    limit: float
    excess: float

    def row(self) -> dict[str, float | None]:
        """As summaries show it."""
        return {name: getattr(self, name) for name in ("predicted", "low", "high", "measured", "measured_high")}


@dataclass(frozen=True)
class Judged:
    """A finalist and what was found. `broken`: a sentence for each limit that does not hold."""

    trained: Trained
    timed: tuple[Timed, ...]
    drop: Drop
    violation: float
    broken: tuple[str, ...] = field(default=())

    @property
    def met(self) -> bool:
        """Whether every limit holds on the file itself."""
        return not self.broken

    @property
    def evaluated(self) -> Evaluated:
        """F5: what was measured on the file, as an evaluation of the job."""
        trained = self.trained
        latency = {latency_metric(each.device_id): each.measured for each in self.timed}
        origin = trained.candidate_id
        candidate = Candidate(
            f"{origin}-timed", trained.values, origin=trained.strategy or "", parents=(origin,), fidelity="F5"
        )
        metrics = {**trained.counts, **latency, "accuracy": trained.accuracy}
        return Evaluated(trained.strategy or "", Evaluation(candidate, Status.COMPLETED, metrics), self.met)

    @property
    def only_slow(self) -> bool:
        """Whether latency alone is in the way."""
        return bool(self.broken) and self.violation == sum(each.excess for each in self.timed)


def judged(
    context: Context,
    inputs: Inputs,
    profile: Profile,
    control: Trained,
    finalists: Sequence[Trained],
    attempt: int = 0,
) -> tuple[Judged, ...]:
    """Time all finalists, the control, the original and the anchors in one lease per target, then judge.

    Raises:
        DeviceOffline, MeasurementFailed: out of the ports.
        Halted: the user wants it.
    """
    timed: dict[str, list[Timed]] = {each.name: [] for each in finalists}
    for number, device in enumerate(profile.devices):
        context.at("verify", number, len(profile.devices) + 1)
        samples = _interleaved(context, inputs, profile, device, control, finalists, attempt)
        for each in finalists:
            timed[each.name].append(_timed(profile, device, each, samples))
    found = tuple(_judge(context.plan, profile, control, each, timed[each.name]) for each in finalists)
    known = {each.evaluation.candidate.id for each in context.recorded.evaluations}
    for one in found:
        _say(context, one)
        if one.evaluated.evaluation.candidate.id not in known:
            context.ports.emit(one.evaluated)
    return found


def best_of(plan: JobPlan, found: Sequence[Judged]) -> Judged | None:
    """The finalist that meets every limit with the best objective, then the smaller latency."""
    met = [each for each in found if each.met]
    return min(met, key=lambda each: (*_utility(plan, each), each.trained.name), default=None)


def nearest_of(plan: JobPlan, found: Sequence[Judged]) -> Judged | None:
    """The finalist with the smallest violation, then as `best_of`."""
    return min(found, key=lambda each: (each.violation, *_utility(plan, each), each.trained.name), default=None)


def _utility(plan: JobPlan, each: Judged) -> tuple[float, float]:
    """Smaller is better in both."""
    latency = sum(timed.measured for timed in each.timed)
    if plan.objective_metric in JUDGED_AFTER_TRAINING:
        return -each.trained.accuracy, latency
    if base_metric(plan.objective_metric) == "latency_ms":
        return latency, -each.trained.accuracy
    sign = 1.0 if plan.objective_goal == "min" else -1.0
    return sign * each.trained.counts[plan.objective_metric], latency


def _interleaved(
    context: Context,
    inputs: Inputs,
    profile: Profile,
    device: TimedDevice,
    control: Trained,
    finalists: Sequence[Trained],
    attempt: int,
) -> Mapping[str, Sample]:
    """Anchors are the ends of the space, timed before: they show whether the machine is as it was."""
    networks: dict[str, Network | bytes] = {UPLOADED: inputs.network, CONTROL: control.model}
    networks |= {each.name: each.model for each in finalists}
    networks[SMALLEST] = profile.builder.anatomy.rewritten(profile.smallest)
    samples = measured(context, f"verify-{attempt}", device.target.device_id, networks, _PROTOCOL)
    for name, earlier in ((UPLOADED, device.original), (SMALLEST, device.smallest)):
        change = statistic_us(samples[name], "quiet") / statistic_us(earlier, "quiet") - 1.0
        if abs(change) > 0.1:
            text = f"{device.target.device_name}: the {name} network takes {change:+.0%} against its first timing."
            context.say(text, "warning")
    return samples


def _speed(device: TimedDevice, samples: Mapping[str, Sample]) -> float:
    """How much longer everything takes than when predictions were calibrated, by the anchors of this session."""
    earlier = {UPLOADED: device.original, SMALLEST: device.smallest}
    references_us = {name: statistic_us(sample, "quiet") for name, sample in earlier.items()}
    now_us = {name: statistic_us(samples[name], "quiet") for name in earlier}
    return 1.0 / session(references_us, now_us, now_us).scale


def _timed(profile: Profile, device: TimedDevice, each: Trained, samples: Mapping[str, Sample]) -> Timed:
    target, sample, original = device.target, samples[each.name], samples[UPLOADED]
    statistic = target.statistic
    high_ms = bootstrap_upper(sample, None, statistic) * MS
    if target.max_latency_ratio is not None:
        ratio = bootstrap_upper(sample, original, statistic)
        limit_ms = target.max_latency_ratio * statistic_us(original, statistic) * MS
        excess = max(0.0, ratio / target.max_latency_ratio - 1.0)
    else:
        limit_ms = device.limit_ms
        excess = max(0.0, high_ms / limit_ms - 1.0)
    factor = _speed(device, samples) * statistic_us(original, statistic) / statistic_us(original, "quiet")
    predicted, low, high = (factor * value for value in _prediction(profile, device, each))
    return Timed(
        device_id=target.device_id,
        statistic=statistic,
        predicted=predicted,
        low=low,
        high=high,
        measured=statistic_us(sample, statistic) * MS,
        measured_high=high_ms,
        quiet=statistic_us(sample, "quiet") * MS,
        p50=statistic_us(sample, "p50") * MS,
        original=statistic_us(original, statistic) * MS,
        limit=limit_ms,
        excess=excess,
    )


def _prediction(profile: Profile, device: TimedDevice, each: Trained) -> tuple[float, float, float]:
    """Predicted milliseconds and the 95 % interval, quiet, at the speed of the calibration."""
    builder, table = profile.builder, device.table
    number = next(i for i, v in enumerate(builder.variants) if v.setting.items() <= each.values.items())
    line = device.calibrations[number]
    network = builder.anatomy.rewritten(each.values)
    sums_us, sigmas_us = table.sums_us([builder.anatomy.ops(network, each.values, table.device.runtime)])
    latency_us, half_us = float(line.latency_us(sums_us)[0]), float(line.half_width_us(sums_us, sigmas_us)[0])
    return latency_us * MS, max(0.0, latency_us - half_us) * MS, (latency_us + half_us) * MS


def _judge(plan: JobPlan, profile: Profile, control: Trained, each: Trained, timed: Sequence[Timed]) -> Judged:
    targets = {target.device_id: target for target in plan.targets}
    broken = [_slow(targets[t.device_id], t) for t in timed if t.excess]
    violation = sum(t.excess for t in timed)
    metrics = {**each.counts, "accuracy": each.accuracy}
    for name, constraint in _other_limits(plan, profile, control):
        over = constraint.violation(metrics)
        if over:
            violation += over
            seen = metrics[constraint.metric]
            broken.append(f"{name} is broken: {constraint.metric} {seen:.6g}, allowed {constraint.bound:.6g}")
    return Judged(each, tuple(timed), drop(control.right, each.right), violation, tuple(broken))


def _slow(target: Target, timed: Timed) -> str:
    return (
        f"{target.device_name}: {timed.measured:.3f} ms, at most {timed.measured_high:.3f} ms with 97.5 % "
        f"certainty, where {timed.limit:.3f} ms ({timed.statistic}) are allowed"
    )


def _other_limits(plan: JobPlan, profile: Profile, control: Trained) -> list[tuple[str, Constraint]]:
    """Limits on accuracy are judged against the control, all others against the original."""
    found = []
    for name, value in plan.limits.items():
        if value is None:
            continue
        limit = parse_limit(name)
        against = {"accuracy": control.accuracy} if limit.metric.name == "accuracy" else profile.original
        found += [(name, constraint) for constraint in parse_limits({name: value}, against)]
    return found


def _say(context: Context, each: Judged) -> None:
    latency = ", ".join(f"{t.measured:.3f} ms (predicted {t.predicted:.3f})" for t in each.timed)
    lost = (
        f"{each.drop.mean:+.2%} [{each.drop.low:+.2%}, {each.drop.high:+.2%}] under the control, n = {each.drop.count}"
    )
    verdict = "meets every limit" if each.met else "; ".join(each.broken)
    context.say(
        f"{each.trained.name}: {latency or 'no target'}; accuracy {each.trained.accuracy:.2%}, {lost}: {verdict}."
    )
