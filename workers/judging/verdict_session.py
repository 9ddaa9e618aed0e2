"""Verdict session: times finalists beside the original and the anchors, until the anchors agree."""

from __future__ import annotations

from collections.abc import Mapping

from compress.network import Network
from hw_profiles.tables.anchors import Session, session
from hw_profiles.tables.verdict_bounds import verdict_rounds
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample, statistic_us
from workers.profiling.calibrate import SMALLEST
from workers.profiling.refusals import demand, ran, refused
from workers.profiling.time_original import UPLOADED
from workers.profiling.timed_device import TimedDevice
from workers.running.context import Context
from workers.running.device_requests import measured
from workers.running.inputs import Inputs
from workers.training.parallel_training import CONTROL

SESSIONS = 3
"""Maximum number of sessions per verdict; a session whose anchors disagree is timed again."""
_MOVED = 0.1
"""Relative change in an anchor's latency above which a line is logged."""


def verdict_session(
    context: Context, inputs: Inputs, device: TimedDevice, networks: Mapping[str, Network | bytes], attempt: int
) -> tuple[Mapping[str, Sample | Failure], Session]:
    """Return a session whose anchors agree; if there is none, warn and return the session in which they agree best.
    A network that the device refuses in any session gives a Failure, and is left out of later sessions.

    Only anchors decide which sessions are timed again, because a choice based on finalists would favour lucky sessions.

    Raises:
        DeviceOffline, MeasurementFailed: raised by the ports, or the device refuses an anchor.
        Halted: the user paused or cancelled the job.
    """
    target = device.target
    rounds = verdict_rounds(target.statistic)
    protocol = BurstProtocol(min_rounds=rounds, max_rounds=rounds)
    found: list[tuple[dict[str, Sample], Session]] = []
    failures: dict[str, Failure] = {}
    checked = networks.keys() - {CONTROL, SMALLEST}
    for turn in range(SESSIONS):
        name = f"verify-{attempt}" if turn == 0 else f"verify-{attempt}-again-{turn}"
        answers = measured(context, inputs, name, target.device_id, networks, protocol, checked)
        for anchor in (UPLOADED, SMALLEST):
            demand(target.device_id, answers, anchor)
        samples = ran(answers)
        failures |= refused(answers)
        networks = {name: network for name, network in networks.items() if name in samples}
        seen = _seen(context, device, samples)
        if seen.accepted:
            return {**samples, **failures}, seen
        found.append((samples, seen))
        context.say(f"{target.device_name}: {_off(seen)}; session {turn + 1} of at most {SESSIONS}.", "warning")
    samples, seen = min(found, key=lambda pair: max(pair[1].spread, abs(pair[1].drift)))
    context.warn(
        f"{target.device_name}: the timings of its anchors disagreed in {SESSIONS} timing sessions in a row, because "
        "other programs use the machine or its speed changes; treat its latencies as unreliable."
    )
    return {**samples, **failures}, seen


def _off(seen: Session) -> str:
    among = f"differ by {seen.spread:.1%} among themselves and by {seen.drift:+.1%} between the session's halves"
    return f"anchors take {1.0 / seen.scale:.2f} x their first time, {among}"


def _seen(context: Context, device: TimedDevice, samples: Mapping[str, Sample]) -> Session:
    """Compare the anchors, which are the ends of the space, with their earlier timing, to see whether the machine has
    changed.
    """
    earlier = {UPLOADED: device.original, SMALLEST: device.smallest}
    references_us = {name: statistic_us(sample, "quiet") for name, sample in earlier.items()}
    now_us = {name: statistic_us(samples[name], "quiet") for name in earlier}
    for name, reference_us in references_us.items():
        change = now_us[name] / reference_us - 1.0
        if abs(change) > _MOVED:
            text = (
                f"{device.target.device_name}: the {name} network takes {change:+.0%} compared with its first timing."
            )
            context.say(text, "warning")
    first_us, last_us = ({name: _quiet_us(samples[name], half) for name in earlier} for half in (0, 1))
    return session(references_us, first_us, last_us)


def _quiet_us(sample: Sample, half: int) -> float:
    """Return the quiet latency of the first (0) or the second half (1) of the rounds."""
    middle = sample.bursts // 2
    rounds = slice(middle, None) if half else slice(middle)
    return statistic_us(Sample(sample.key, sample.minima_us[rounds], sample.medians_us[rounds]), "quiet")
