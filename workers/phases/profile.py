"""The profile phase: measures the original on every device, and prepares predictions for any network cut from it."""

from __future__ import annotations

from collections.abc import Sequence

from compress.counting.count import Form
from compress.network import Network
from hw_profiles import runtimes
from hw_profiles.tables.kernel_classes import KernelClasses
from search.metrics import latency_metric
from search.space import Values
from workers.plan import Target
from workers.problem.builder import ProblemBuilder
from workers.problem.counted import counted
from workers.profiling.calibrate import LEAST_TO_FIT, calibrated, draw, session, smallest_that_runs
from workers.profiling.fill import filled_table, smallest_network
from workers.profiling.left_out import leave_out_settings
from workers.profiling.take_apart import taken_apart
from workers.profiling.time_original import original_score, time_original, timed_form_of
from workers.profiling.timed_device import Profile, TimedDevice
from workers.running.context import Context
from workers.running.device_requests import learned_classes
from workers.running.fuser import Fuser
from workers.running.inputs import Inputs


def profile(context: Context, inputs: Inputs) -> Profile:
    """Time the original, learn how the devices align channels, fill their tables, and calibrate on whole networks.

    Raises:
        JobFailed: there is nothing to prune or quantise.
        DeviceOffline, MeasurementFailed: raised by the ports.
        Halted: the user paused or cancelled the job.
    """
    targets = context.plan.targets
    total = 1 + 3 * len(targets)
    context.at("profile", 0, total)
    originals = {target.device_id: time_original(context, inputs, target) for target in targets}
    network = timed_form_of(context, inputs, originals)
    classes = []
    for number, target in enumerate(targets, 1):
        context.at("profile", number, total)
        _warn_of_common_rules(context, target)
        classes.append(learned_classes(context, target.device_id))
    fuser = Fuser(context, [target.device_id for target in targets])
    builder, smallest, devices = _prepared(context, inputs, network, classes, fuser)
    return Profile(network, builder, tuple(devices), _original(context, inputs, devices), smallest)


def _prepared(
    context: Context, inputs: Inputs, network: Network, classes: Sequence[KernelClasses], fuser: Fuser
) -> tuple[ProblemBuilder, Values, list[TimedDevice]]:
    """Take the network apart, fill the tables, and calibrate the devices; begin again without the options of which a
    device refuses every network.
    """
    targets = context.plan.targets
    total = 1 + 3 * len(targets)
    builder = taken_apart(context, inputs, network, classes, fuser)
    tables = []
    for number, (target, rules) in enumerate(zip(targets, classes, strict=True), 1 + len(targets)):
        context.at("profile", number, total)
        tables.append(filled_table(context, builder, target, rules))
    drawn = draw(context, builder, smallest_network(builder, tables))
    sessions = {}
    for number, target in enumerate(targets, 1 + 2 * len(targets)):
        context.at("profile", number, total)
        sessions[target.device_id] = session(context, inputs, builder, target, drawn)
    if leave_out_settings(context, builder, drawn, sessions, LEAST_TO_FIT):
        return _prepared(context, inputs, network, classes, fuser)
    smallest = smallest_that_runs(context, builder, tables, drawn, sessions)
    devices = [
        calibrated(context, builder, target, table, drawn, sessions[target.device_id], smallest)
        for target, table in zip(targets, tables, strict=True)
    ]
    return builder, drawn[smallest], devices


def _warn_of_common_rules(context: Context, target: Target) -> None:
    assumed = runtimes.assumed(context.ports.table(target.device_id).device.runtime)
    if assumed:
        context.warn(f"{target.device_name}: {assumed}.")


def _original(context: Context, inputs: Inputs, devices: Sequence[TimedDevice]) -> dict[str, float]:
    """Return the metrics of the uploaded network."""
    uploaded = context.ports.path(context.plan.model.sha256).read_bytes()
    counts = counted(Form(inputs.network, inputs.network, uploaded))
    return {
        **{name: float(number) for name, number in counts.items()},
        context.plan.metric: original_score(context, inputs),
        **{latency_metric(timed.target.device_id): timed.resting_ms(timed.original) for timed in devices},
    }
