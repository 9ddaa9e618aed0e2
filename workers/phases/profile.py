"""The profile phase: what the original costs on every device, and what any network cut from it would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from compress.counting.cost import cost, sent
from compress.evidence import Evidence
from compress.graph.groups import groups, prunable_blocks
from compress.network import Network
from compress.scheme import Scheme
from hw_profiles.ops import Op
from hw_profiles.tables.calibration import Calibration, calibrate
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.protocol import BurstProtocol, Sample, statistic_us
from hw_profiles.timing.unrest import Unrest, unrest
from search.metrics import latency_metric
from search.space import Value, Values
from workers.errors import InvalidInput, JobFailed
from workers.evaluating.accuracy import Right
from workers.plan import Target
from workers.problem.builder import Device, ProblemBuilder
from workers.problem.kernel_space import KernelSpace
from workers.problem.widths import MOST_LEVELS, searched_widths
from workers.progress import Calibrated
from workers.running.context import Context
from workers.running.device_requests import fill_most_uncertain, learned_classes, measured
from workers.running.fuser import Fuser
from workers.running.inputs import Inputs

UPLOADED, REWRITTEN, SMALLEST, WHOLE = "uploaded", "rewritten", "smallest", "whole"
_QUICK = BurstProtocol()
_WHOLE = BurstProtocol(min_rounds=20)  # a choice: two halves of so many differ by under 1 % (docs/benchmarks.md)
_FEW_IMAGES = 4  # enough for int8 to find ranges: what is timed does not depend on them
_LEAST_PER_SETTING = 4
_MARGIN = (0.01, 0.05)


@dataclass(frozen=True)
class Whole:
    """A network timed whole: its kernels, and what it took, quiet."""

    ops: tuple[Op, ...]
    quiet_us: float


@dataclass(frozen=True)
class TimedDevice:
    """A target with what was found out. Whatever is in milliseconds is in the target's own statistic, as on a machine
    at rest: the limit, predictions, floors and bounds.

    `wholes`: by setting, the networks that the device's lines are fitted on; `unrest`: the statistic over quiet.
    """

    target: Target
    table: LatencyTable
    wholes: tuple[tuple[Whole, ...], ...]
    original: Sample
    smallest: Sample
    unrest: Unrest

    @cached_property
    def calibrations(self) -> tuple[Calibration, ...]:
        """a + b * sum, the quiet latency, for each setting, fitted on the networks of that setting."""
        return tuple(_line(self.table, wholes) for wholes in self.wholes)

    @property
    def lines(self) -> tuple[Calibration, ...]:
        """The calibrations in the target's statistic."""
        return tuple(line.scaled(self.unrest.value) for line in self.calibrations)

    @property
    def device(self) -> Device:
        """As the problem builder wants it."""
        return Device(self.target.device_id, self.table, self.lines)

    def with_table(self, table: LatencyTable) -> TimedDevice:
        """The same by another snapshot; alignment rules stay, so that the search's grid does."""
        return replace(self, table=table.updated(classes=self.table.classes))

    def resting_ms(self, sample: Sample) -> float:
        """What a network that was timed in some session takes on a machine at rest."""
        return self.unrest.value * statistic_us(sample, "quiet") / 1e3

    @property
    def limit_ms(self) -> float:
        """The limit; a ratio is of the original in the session that predictions are calibrated in."""
        if self.target.max_latency_ms is not None:
            return self.target.max_latency_ms
        assert self.target.max_latency_ratio is not None
        return self.target.max_latency_ratio * self.resting_ms(self.original)

    @property
    def allowed_ms(self) -> float:
        """What predictions are held against: over a limit in milliseconds if others' work hid how far the statistic
        is from quiet. Of a ratio both sides are as far from it.
        """
        return self.limit_ms * (self.unrest.leniency if self.target.max_latency_ms is not None else 1.0)

    @property
    def bound_ms(self) -> float:
        """`allowed_ms` less a margin for what predictions err."""
        worst = max(line.residual for line in self.calibrations)
        return self.allowed_ms * (1.0 - min(max(worst, _MARGIN[0]), _MARGIN[1]))


@dataclass(frozen=True)
class Profile:
    """What the profile phase found. `network` is the form that everything is cut from, batch norms folded."""

    network: Network
    builder: ProblemBuilder
    devices: tuple[TimedDevice, ...]
    original: Mapping[str, float]
    smallest: Values

    def floor_ms(self, timed: TimedDevice) -> float:
        """No candidate can be predicted faster than this on the device."""
        return self.builder.floor_ms(timed.device)


def profile(context: Context, inputs: Inputs) -> Profile:
    """Time the original, learn the devices' alignment, fill their tables, and calibrate on whole networks.

    Raises:
        JobFailed: there is nothing to prune or quantise.
        DeviceOffline, MeasurementFailed: out of the ports.
        Halted: the user wants it.
    """
    targets = context.plan.targets
    total = 1 + 3 * len(targets)
    context.at("profile", 0, total)
    originals = {target.device_id: _original(context, inputs, target) for target in targets}
    network = _form(context, inputs, originals)
    classes = []
    for number, target in enumerate(targets, 1):
        context.at("profile", number, total)
        classes.append(learned_classes(context, target.device_id))
    builder = _taken_apart(context, inputs, network, classes, Fuser(context, [t.device_id for t in targets]))
    tables = []
    for number, (target, rules) in enumerate(zip(targets, classes, strict=True), 1 + len(targets)):
        context.at("profile", number, total)
        tables.append(_table(context, builder, target, rules))
    smallest = _smallest(builder, tables)
    devices = []
    for number, (target, table) in enumerate(zip(targets, tables, strict=True), 1 + 2 * len(targets)):
        context.at("profile", number, total)
        devices.append(_timed(context, inputs, builder, target, table, smallest))
    whole = sent(cost(inputs.network), context.ports.path(context.plan.model.sha256).read_bytes())
    original: dict[str, float] = {
        "macs": float(whole.macs),
        "parameters": float(whole.parameters),
        "size_bytes": float(whole.size_bytes),
        "nonzeros": float(whole.nonzeros),
        "stored_bytes": float(whole.stored_bytes),
        "accuracy": _accuracy(context, inputs),
    }
    for timed in devices:
        original[latency_metric(timed.target.device_id)] = timed.resting_ms(timed.original)
    return Profile(network, builder, tuple(devices), original, smallest)


def _original(context: Context, inputs: Inputs, target: Target) -> Mapping[str, Sample]:
    """The uploaded network timed whole, and its rewritten form where there is one."""
    forms: dict[str, Network | bytes] = {UPLOADED: inputs.network}
    if inputs.rewritten is not inputs.folded:
        forms[REWRITTEN] = inputs.rewritten
    samples = measured(context, "original", target.device_id, forms, _QUICK)
    shown = ", ".join(f"{statistic_us(sample, 'quiet') / 1e3:.3f} ms as {name}" for name, sample in samples.items())
    context.say(f"{target.device_name}: the original takes {shown} (quiet).")
    return samples


def _form(context: Context, inputs: Inputs, originals: Mapping[str, Mapping[str, Sample]]) -> Network:
    """The rewritten form where timing says that it pays on every device, else the network as it came."""
    pays = [
        statistic_us(samples[REWRITTEN], "quiet") <= statistic_us(samples[UPLOADED], "quiet")
        for samples in originals.values()
        if REWRITTEN in samples
    ]
    if pays and all(pays):
        context.say("A lossless rewrite of the shortcuts pays and is kept for every candidate and the control.")
        return inputs.rewritten
    return inputs.folded


def _taken_apart(
    context: Context, inputs: Inputs, network: Network, classes: Sequence[KernelClasses], fuser: Fuser
) -> ProblemBuilder:
    """Knobs with as many levels as keep every kernel's table small; and the kernels."""
    blocks = prunable_blocks(network)
    for group in groups(network):
        if group.reason:
            context.say(f"{group.name} keeps its {group.width} channels: {group.reason}.")
    scheme = Scheme.of([(method.name, method.settings) for method in context.plan.methods])
    images, _ = inputs.reference(_FEW_IMAGES)
    evidence = Evidence(images=images, importance={b.name: np.ones(b.width) for b in blocks})
    most = MOST_LEVELS
    while True:
        try:
            widths = searched_widths(network, scheme, classes, most)
            with fuser.computing():
                builder = ProblemBuilder(KernelSpace(network, scheme, widths, evidence, fuser.runtimes, fuser))
        except InvalidInput as error:
            if error.field == "methods":
                raise JobFailed("nothing_to_change", "profile", error.message, "methods") from error
            if most <= 2:
                raise JobFailed("too_entangled", "profile", str(error), "model") from error
            most = most // 2 if most > 4 else most - 1
            context.say(f"Many blocks meet in one kernel: each knob gets at most {most} widths.")
            continue
        prunable = sum(knob.role == "width" for knob in builder.space.knobs)
        context.say(f"{prunable} blocks can be pruned, {len(builder.space.knobs)} knobs in all.")
        return builder


def _table(context: Context, builder: ProblemBuilder, target: Target, classes: KernelClasses) -> LatencyTable:
    runtime = context.ports.table(target.device_id).device.runtime
    ops, frequencies = builder.ops(runtime), builder.frequencies(runtime)
    ends = {op.key for values in builder.ends for op in builder.ops_at(values, runtime)}
    table = fill_most_uncertain(context, target.device_id, ops, frequencies, context.plan.effort.rows, ends)
    if not table.rows:
        raise JobFailed("no_timings", "profile", f"{target.device_name} timed nothing", "targets")
    return table.updated(classes=classes)


def _smallest(builder: ProblemBuilder, tables: Sequence[LatencyTable]) -> Values:
    """Every ordered knob at its least, in the setting that is fastest so: int8 does not pay for the tiniest."""
    least: dict[str, Value] = {knob.name: knob.least if knob.ordered else knob.whole for knob in builder.space.knobs}
    corners: list[Values] = [{**least, **setting} for setting in builder.settings]
    cost_us = np.zeros(len(corners))
    for table in tables:
        runtime = table.device.runtime
        parts = [builder.ops_at(corner, runtime) for corner in corners]
        sums_us, _ = table.sums_us(parts)
        cost_us += sums_us / sums_us.max()
    return corners[int(np.argmin(cost_us))] if tables else corners[-1]


def _timed(
    context: Context, inputs: Inputs, builder: ProblemBuilder, target: Target, table: LatencyTable, smallest: Values
) -> TimedDevice:
    drawn = _drawn(context, builder, smallest)
    networks = {name: builder.kernels.rewritten(values) for name, values in drawn.items()}
    # The original once more: a limit that is a share of it must be of the session that predictions speak of.
    samples = measured(context, "calibration", target.device_id, {UPLOADED: inputs.network, **networks}, _WHOLE)
    wholes = _wholes(builder, table.device.runtime, drawn, networks, samples)
    factor = unrest(list(samples.values()), target.statistic)
    timed = TimedDevice(target, table, wholes, samples[UPLOADED], samples[SMALLEST], factor)
    _report_lines(context, timed)
    return timed


def _drawn(context: Context, builder: ProblemBuilder, smallest: Values) -> dict[str, Values]:
    """Networks of the very space to be searched, spread over it: its two ends, and random ones of each setting."""
    rng = np.random.default_rng([context.plan.seed, 1])
    knobs = [knob for knob in builder.space.levelled if knob.name not in builder.settings[0]]
    each = max(_LEAST_PER_SETTING, -(-context.plan.effort.calibration_networks // len(builder.settings)))
    drawn: dict[str, Values] = {SMALLEST: smallest}
    for number, setting in enumerate(builder.settings):
        drawn[f"{WHOLE}-{number}"] = {**builder.whole, **setting}
        for i in range(each - 1):
            # A common lean of all knobs besides each one's own draw: sums of independent draws bunch up.
            lean = rng.uniform(0.0, 1.0)
            chosen = {knob.name: knob.value(_leaning(knob.level_count, lean, rng)) for knob in knobs}
            drawn[f"random-{number}-{i}"] = {**builder.whole, **setting, **chosen}
    return drawn


def _leaning(count: int, lean: float, rng: np.random.Generator) -> int:
    return int(np.clip(round((0.6 * lean + 0.4 * rng.uniform()) * (count - 1)), 0, count - 1))


def _wholes(
    builder: ProblemBuilder,
    runtime: str,
    drawn: Mapping[str, Values],
    networks: Mapping[str, Network],
    samples: Mapping[str, Sample],
) -> tuple[tuple[Whole, ...], ...]:
    """The timed networks of each setting."""
    return tuple(
        tuple(
            Whole(builder.kernels.ops(networks[name], runtime), statistic_us(samples[name], "quiet"))
            for name, values in drawn.items()
            if setting.items() <= values.items()
        )
        for setting in builder.settings
    )


def _line(table: LatencyTable, wholes: Sequence[Whole]) -> Calibration:
    sums_us, sigmas_us = table.sums_us([whole.ops for whole in wholes])
    return calibrate(sums_us.tolist(), sigmas_us.tolist(), [whole.quiet_us for whole in wholes])


def _report_lines(context: Context, timed: TimedDevice) -> None:
    for line in timed.calibrations:
        error = f"{line.loo_mape:.1%}" if line.loo_mape is not None else "not known"
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
    # A device keeps one line; that of the first setting is the network's own precision.
    line = timed.calibrations[0]
    context.ports.emit(Calibrated(timed.target.device_id, timed.table.epoch, line.to_json()))


def original_right(context: Context, inputs: Inputs) -> Right:
    """Which validation images the original gets right; looked at once in a job."""
    known = context.recall("original-right")
    if known is None:
        with context.computing():
            known = {"right": inputs.right(inputs.network.save()).astype(int).tolist()}
        context.keep("original-right", known)
    return np.array(known["right"], dtype=bool)


def _accuracy(context: Context, inputs: Inputs) -> float:
    right = original_right(context, inputs)
    accuracy = float(right.mean())
    context.say(f"The original's accuracy is {accuracy:.2%} on {len(right)} validation images.")
    return accuracy
