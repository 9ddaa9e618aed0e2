"""Timed: finalists timed as whole networks beside the original, with the tables' earlier predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from compress.network import Network
from hw_profiles.tables.anchors import Session
from hw_profiles.tables.verdict_bounds import upper_bound
from hw_profiles.timing.protocol import Failure, Sample, Statistic, statistic_us
from workers.judging.verdict_session import verdict_session
from workers.profiling.calibrate import SMALLEST
from workers.profiling.refusals import ran, refused
from workers.profiling.time_original import UPLOADED
from workers.profiling.timed_device import Profile, TimedDevice
from workers.running import memos
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.training.parallel_training import CONTROL
from workers.training.trained import Trained

MS = 1e-3


@dataclass(frozen=True)
class Timed:
    """One file on one target, in milliseconds of the target's statistic.

    `predicted_ms` is the prediction by tables and the calibrated line before the file was timed; `low_ms` and `high_ms`
    are the ends of its interval, which holds at `level`. `predicted_in_session_ms` is the same prediction at the speed
    that the anchors had in the verdict's session; it explains a prediction error but does not change the verdict.
    `measured_high_ms` is the upper 97.5 % bound, which decides; under a ratio limit, it is the bound of the ratio times
    `original_ms`. `original_ms` is the latency of the uploaded network in the same session. `excess` is the relative
    excess of the bound over the limit, or 0 if the limit is kept.
    """

    device_id: str
    statistic: Statistic
    predicted_ms: float
    low_ms: float
    high_ms: float
    level: float
    predicted_in_session_ms: float
    measured_ms: float
    measured_high_ms: float
    quiet_ms: float
    p50_ms: float
    original_ms: float
    limit_ms: float
    excess: float

    def row(self) -> dict[str, float | None]:
        """Return the row in the form of summaries."""
        return {
            "predicted": self.predicted_ms,
            "low": self.low_ms,
            "high": self.high_ms,
            "measured": self.measured_ms,
            "measured_high": self.measured_high_ms,
        }


def timed_on(
    context: Context,
    inputs: Inputs,
    profile: Profile,
    device: TimedDevice,
    control: Trained,
    finalists: Sequence[Trained],
    attempt: int,
) -> Mapping[str, Timed | Failure]:
    """Predict every finalist on one target, then time them in one lease with original and anchors; return them by name.
    A finalist that the device refuses gives a Failure.

    Raises:
        DeviceOffline, MeasurementFailed: raised by the ports, or the device refuses an anchor.
        Halted: the user paused or cancelled the job.
    """
    predicted = _predictions(context, profile, device, finalists, attempt)
    networks: dict[str, Network | bytes] = {UPLOADED: inputs.network, CONTROL: control.model}
    networks |= {each.name: each.model for each in finalists}
    networks[SMALLEST] = profile.builder.kernels.rewritten(profile.smallest)
    answers, seen = verdict_session(context, inputs, device, networks, attempt)
    samples, failures = ran(answers), refused(answers)
    return {
        name: failures.get(name) or _timed(device, predicted[name], samples, seen, name)
        for name in (each.name for each in finalists)
    }


def _predictions(
    context: Context, profile: Profile, device: TimedDevice, finalists: Sequence[Trained], attempt: int
) -> Mapping[str, memos.Predicted]:
    """Return the predictions. They are recorded before anything is timed, so that a restart reports the same
    predictions.
    """
    return context.once(
        memos.predicted(attempt, device.target.device_id),
        lambda: {each.name: _prediction(profile, device, each) for each in finalists},
        lambda known: known.keys() == {each.name for each in finalists},
    )


def _prediction(profile: Profile, device: TimedDevice, each: Trained) -> memos.Predicted:
    """Predict a finalist in the target's statistic for a machine at rest, without any timing of the finalist itself."""
    builder, table = profile.builder, device.table
    network = builder.kernels.rewritten(each.values)
    ops = builder.kernels.ops(network, table.device.runtime)
    line = device.line_without(builder.kernels.setting(each.values), ops)
    sums_us, sigmas_us = table.sums_us([ops])
    latency_us, half_us = float(line.latency_us(sums_us)[0]), float(line.half_width_us(sums_us, sigmas_us)[0])
    return memos.Predicted(
        predicted_ms=MS * latency_us,
        low_ms=MS * max(0.0, latency_us - half_us),
        high_ms=MS * (latency_us + half_us),
        level=line.level,
    )


def _timed(
    device: TimedDevice, predicted: memos.Predicted, samples: Mapping[str, Sample], seen: Session, name: str
) -> Timed:
    target, sample, original = device.target, samples[name], samples[UPLOADED]
    statistic, original_ms = target.statistic, statistic_us(original, target.statistic) * MS
    if target.max_latency_ratio is not None:
        limit_ms = target.max_latency_ratio * original_ms
        high_ms = upper_bound(sample, original, statistic) * original_ms
    else:
        limit_ms = device.limit_ms
        high_ms = upper_bound(sample, None, statistic) * MS
    return Timed(
        device_id=target.device_id,
        statistic=statistic,
        **asdict(predicted),
        predicted_in_session_ms=predicted.predicted_ms / seen.scale * _unrest(device, original),
        measured_ms=statistic_us(sample, statistic) * MS,
        measured_high_ms=high_ms,
        quiet_ms=statistic_us(sample, "quiet") * MS,
        p50_ms=statistic_us(sample, "p50") * MS,
        original_ms=original_ms,
        limit_ms=limit_ms,
        excess=max(0.0, high_ms / limit_ms - 1.0),
    )


def _unrest(device: TimedDevice, original: Sample) -> float:
    """Return the statistic's ratio to the quiet latency in this session, relative to the same ratio on a machine at
    rest.
    """
    now = statistic_us(original, device.target.statistic) / statistic_us(original, "quiet")
    return now / device.unrest.value
