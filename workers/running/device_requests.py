"""Requests rows and timings of whole networks from a job's devices through the ports, waits for them, and records
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

from compress.network import Network
from hw_profiles import runtimes
from hw_profiles.ops import Op
from hw_profiles.tables.features import features_of
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.predictor import work
from hw_profiles.tables.probe import probe
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from workers.progress import Learned
from workers.running import memos
from workers.running.context import Context
from workers.running.engine_files import engine_files
from workers.running.inputs import Inputs

NEWS_S = 2.0
"""Seconds that one wait for rows lasts before the user's signal is checked again."""


def learned_classes(context: Context, device_id: str) -> KernelClasses:
    """Return the device's kernel classes, from its table if it has them; else request two probe curves and learn the
    classes from these.
    """
    table = context.ports.table(device_id)
    if not table.classes.trivial:
        return table.classes
    curves = probe()
    missing = [op for op in curves.ops if op.key not in table.rows]
    if missing:
        context.say(f"Learning how {context.device_name(device_id)} aligns channels: {len(missing)} probes.")
        table = filled(context, device_id, missing, [1.0] * len(missing))
    latency_us = {op.key: table.rows[op.key].latency_us for op in curves.ops if op.key in table.rows}
    if 2 * len(latency_us) < len(curves.ops):
        name = context.device_name(device_id)
        context.say(f"{name} timed too few probes; every width is tried on this device.", "warning")
        return table.classes
    classes = runtimes.learned(table.device.runtime, curves.curves(latency_us))
    context.ports.emit(Learned(device_id, classes.to_json()))
    return classes


def fill_most_uncertain(
    context: Context,
    device_id: str,
    ops: Sequence[Op],
    frequencies: Mapping[str, float],
    most: int,
    first: Set[str] = frozenset(),
) -> LatencyTable:
    """Request the rows that would improve predictions most: the largest uncertainty x frequency first.

    `first` has the keys of ops that are requested before all others, so that the latencies of networks made of these
    ops are known exactly. A restart requests no further rows: the job works with the rows that its first run got.
    """
    table = context.ports.table(device_id)
    if context.recall(memos.filled(device_id)) is not None:
        return table
    entries = table.entries(ops)
    worth = {
        op.key: frequencies[op.key] * (entry.sigma_us if math.isfinite(entry.sigma_us) else work(features_of(op)))
        for op, entry in zip(ops, entries, strict=True)
        if entry.source != "measured"
    }
    most_worth = max(worth.values(), default=0.0)
    worth = {key: value + most_worth * (key in first) for key, value in worth.items()}
    wanted = sorted((op for op in ops if op.key in worth), key=lambda op: -worth[op.key])[:most]
    if not wanted:
        return table
    name, known = context.device_name(device_id), len(ops) - len(worth)
    context.say(f"{name}: timing {len(wanted)} of {len(ops)} kernels; {known} are already known.")
    table = filled(context, device_id, wanted, [worth[op.key] for op in wanted])
    context.keep(memos.filled(device_id), memos.Filled(len(wanted), table.epoch))
    return table


def filled(context: Context, device_id: str, ops: Sequence[Op], priority: Sequence[float]) -> LatencyTable:
    """Request rows, and wait until no row is outstanding or the plan's `device_wait_s` is over; then return the
    table.
    """
    context.ports.fill(device_id, ops, priority)
    begun_s = context.clock_s()
    outstanding = len(ops)
    while outstanding and context.clock_s() - begun_s < context.plan.effort.device_wait_s:
        outstanding = context.ports.wait(device_id, NEWS_S)
        done = max(0, len(ops) - outstanding)
        waited_s = context.clock_s() - begun_s
        context.within(done / len(ops), waited_s / done * outstanding if done and outstanding else None)
    table = context.ports.table(device_id)
    missing = sum(op.key not in table.rows for op in ops)
    if missing:
        name = context.device_name(device_id)
        context.say(f"{name}: {missing} of {len(ops)} kernels could not be timed and are predicted.", "warning")
    return table


def measured(
    context: Context,
    inputs: Inputs,
    name: str,
    device_id: str,
    networks: Mapping[str, Network | bytes],
    protocol: BurstProtocol,
    checked: Set[str] = frozenset(),
) -> Mapping[str, Sample | Failure]:
    """Time whole networks in one lease, each as the file that the device's engine runs. The samples are recorded under
    `name`, so that a restart need not time them again. A network that the device refuses gives a Failure.

    Args:
        checked: the networks that decide a verdict; their outputs on the device are checked (see `engine_files`).

    Raises:
        DeviceOffline, MeasurementFailed, Halted: see `engine_files` and `Ports.measure`.
    """

    def measure() -> Mapping[str, Sample | Failure]:
        models = {key: each.save() if isinstance(each, Network) else each for key, each in networks.items()}
        files = engine_files(context, inputs, device_id, models, context.folder(f"timed/{name}"), checked)
        refused = {key: each for key, each in files.items() if isinstance(each, Failure)}
        paths = {key: each for key, each in files.items() if not isinstance(each, Failure)}
        return {**refused, **(context.ports.measure(device_id, paths, protocol) if paths else {})}

    return context.once(memos.timed(name, device_id), measure, lambda known: known.keys() == networks.keys())
