"""Calibration: times whole networks, and fits the lines from the sums of their kernels to their latencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compress.network import Network
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample, statistic_us
from hw_profiles.timing.unrest import unrest
from search.space import Values
from workers.plan import Target
from workers.problem.builder import ProblemBuilder
from workers.profiling.fill import relative_costs
from workers.profiling.refusals import demand, ran, refused
from workers.profiling.time_original import UPLOADED
from workers.profiling.timed_device import TimedDevice, Whole
from workers.progress import Calibrated
from workers.running.context import Context
from workers.running.device_requests import measured
from workers.running.inputs import Inputs

SMALLEST, WHOLE = "smallest", "whole"
# chosen so that two halves of the rounds differ by under 1 % (docs/benchmarks.md)
_WHOLE = BurstProtocol(min_rounds=20)
_LEAST_PER_SETTING = 4
LEAST_TO_FIT = 2
"""Least number of networks of one setting; a line has two unknowns."""


def session(
    context: Context, inputs: Inputs, builder: ProblemBuilder, target: Target, drawn: Mapping[str, Values]
) -> Mapping[str, Sample | Failure]:
    """Time the networks drawn from the space, and the original again, because a ratio limit must refer to the session
    of the calibration.

    Raises:
        MeasurementFailed: the device refuses the original.
        DeviceOffline, Halted: see `measured`.
    """
    networks = {name: builder.kernels.rewritten(values) for name, values in drawn.items()}
    answers = measured(context, inputs, "calibration", target.device_id, {UPLOADED: inputs.network, **networks}, _WHOLE)
    demand(target.device_id, answers, UPLOADED)
    return answers


def smallest_that_runs(
    context: Context,
    builder: ProblemBuilder,
    tables: Sequence[LatencyTable],
    drawn: Mapping[str, Values],
    sessions: Mapping[str, Mapping[str, Sample | Failure]],
) -> str:
    """Return the name of the smallest network, which is an anchor of every later session. If a device refuses it, the
    fastest drawn network that every device runs takes its place.

    Raises:
        MeasurementFailed: there is no such network.
    """
    failures = {device_id: refused(answers).get(SMALLEST) for device_id, answers in sessions.items()}
    if not any(failures.values()):
        return SMALLEST
    common = [name for name in drawn if all(name in ran(answers) for answers in sessions.values())]
    for device_id, failure in failures.items():
        if not common:
            demand(device_id, sessions[device_id], SMALLEST)
        if failure is not None:
            context.warn(
                f"{context.device_name(device_id)} refuses the smallest network, so that a larger one takes its place: "
                f"{failure.reason}."
            )
    costs = relative_costs(builder, tables, [drawn[name] for name in common])
    return common[int(np.argmin(costs))]


def calibrated(
    context: Context,
    builder: ProblemBuilder,
    target: Target,
    table: LatencyTable,
    drawn: Mapping[str, Values],
    answers: Mapping[str, Sample | Failure],
    smallest: str,
) -> TimedDevice:
    """Fit the device's lines to the networks of a session.

    Raises:
        MeasurementFailed: the device refuses so many networks of one setting that no line can be fitted.
    """
    samples = _accepted(context, builder, target, drawn, answers)
    networks = {name: builder.kernels.rewritten(values) for name, values in drawn.items() if name in samples}
    wholes = _wholes(builder, table.device.runtime, drawn, networks, samples)
    factor = unrest(list(samples.values()), target.statistic)
    timed = TimedDevice(target, table, wholes, samples[UPLOADED], samples[smallest], factor)
    _report_lines(context, timed)
    return timed


def draw(context: Context, builder: ProblemBuilder, smallest: Values) -> dict[str, Values]:
    """Draw networks from the space to be searched: its two ends, and random networks of each setting."""
    rng = np.random.default_rng([context.plan.seed, 1])
    knobs = [knob for knob in builder.space.levelled if knob.name not in builder.settings[0]]
    each = max(_LEAST_PER_SETTING, -(-context.plan.effort.calibration_networks // len(builder.settings)))
    drawn: dict[str, Values] = {SMALLEST: smallest}
    for number, setting in enumerate(builder.settings):
        drawn[f"{WHOLE}-{number}"] = {**builder.whole, **setting}
        for i in range(each - 1):
            # All knobs also lean the same way, because the sums of independent draws would be too similar.
            lean = rng.uniform(0.0, 1.0)
            chosen = {knob.name: knob.value(_leaning(knob.level_count, lean, rng)) for knob in knobs}
            drawn[f"random-{number}-{i}"] = {**builder.whole, **setting, **chosen}
    return drawn


def _accepted(
    context: Context,
    builder: ProblemBuilder,
    target: Target,
    drawn: Mapping[str, Values],
    answers: Mapping[str, Sample | Failure],
) -> Mapping[str, Sample]:
    """Return the samples, after a log line for each network that the device refused.

    Raises:
        MeasurementFailed: the device refuses so many networks of one setting that no line can be fitted.
    """
    for name, failure in refused(answers).items():
        context.say(
            f"{target.device_name} refuses the calibration network {name}, which is left out: {failure.reason}."
        )
    samples = ran(answers)
    for setting in builder.settings:
        names = [name for name, values in drawn.items() if setting.items() <= values.items()]
        if sum(name in samples for name in names) < min(LEAST_TO_FIT, len(names)):
            demand(target.device_id, answers, next(name for name in names if name not in samples))
    return samples


def _leaning(count: int, lean: float, rng: np.random.Generator) -> int:
    return int(np.clip(round((0.6 * lean + 0.4 * rng.uniform()) * (count - 1)), 0, count - 1))


def _wholes(
    builder: ProblemBuilder,
    runtime: str,
    drawn: Mapping[str, Values],
    networks: Mapping[str, Network],
    samples: Mapping[str, Sample],
) -> tuple[tuple[Whole, ...], ...]:
    """Return the timed networks of each setting."""
    return tuple(
        tuple(
            Whole(builder.kernels.ops(networks[name], runtime), statistic_us(samples[name], "quiet"))
            for name, values in drawn.items()
            if setting.items() <= values.items() and name in samples
        )
        for setting in builder.settings
    )


def _report_lines(context: Context, timed: TimedDevice) -> None:
    for line in timed.calibrations:
        error = f"{line.loo_mape:.1%}" if line.loo_mape is not None else "unknown"
        context.say(
            f"{timed.target.device_name}: latency = {line.a_us / 1e3:.3f} ms + {line.b:.3f} x kernels, "
            f"error {error} on {line.networks} whole networks."
        )
    if timed.target.statistic != "quiet":
        seen = timed.unrest
        context.say(
            f"{timed.target.device_name}: {timed.target.statistic} is {seen.value:.2f} x quiet on a machine at rest "
            f"({seen.low:.2f} to {seen.high:.2f} in this session)."
        )
    # A device stores only one line: the line of the first setting, which is for the network's own precision.
    line = timed.calibrations[0]
    context.ports.emit(Calibrated(timed.target.device_id, timed.table.epoch, line.to_json()))
