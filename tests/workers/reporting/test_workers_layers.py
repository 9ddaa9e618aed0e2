"""What a job did to each layer: the rows' widths, times that add up, costs and reasons."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from compress.evidence import Evidence
from compress.graph.fold import fold_norms
from compress.graph.groups import groups, prunable_blocks
from compress.network import Network
from compress.scheme import Scheme
from hw_profiles.host_lock import HostLock
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.protocol import Sample
from hw_profiles.timing.unrest import Unrest
from search.metrics import METRICS
from search.space import Choice, Float, Values
from workers.job import run
from workers.plan import JobPlan, Named, Target
from workers.problem.builder import ProblemBuilder
from workers.problem.kernel_space import KernelSpace
from workers.problem.widths import block_widths
from workers.profiling.timed_device import TimedDevice, Whole
from workers.reporting.layer_cut import LayerCut
from workers.reporting.layer_reasons import reason
from workers.reporting.layers import WHOLE_NETWORK, LayerRow, LayerTable
from workers.reporting.node_times import NodeTimes
from workers.running.memory_ports import MemoryPorts

DEVICE = "dev_1"
Job = Callable[..., tuple[JobPlan, MemoryPorts]]
ACCURACY = METRICS["accuracy"]
CALL_US = 20.0
"""What the fake whole networks take beyond the sum of their kernels: it becomes the time of no layer."""


@pytest.fixture(scope="module")
def builder(trained: Network, known_table: LatencyTable) -> ProblemBuilder:
    blocks = prunable_blocks(trained)
    evidence = Evidence(np.zeros((4, 1, 8, 8), np.float32), {block.name: np.ones(block.width) for block in blocks})
    scheme = Scheme.of([("filter_prune", {}), ("int8_ptq", {})])
    widths = block_widths(blocks, [known_table.classes])
    return ProblemBuilder(KernelSpace(fold_norms(trained), scheme, widths, evidence, ["simulated"]))


@pytest.fixture(scope="module")
def timed(builder: ProblemBuilder, known_table: LatencyTable) -> TimedDevice:
    """A device whose whole networks take their kernels' sum and the cost of a call."""
    wholes = []
    for setting in builder.settings:
        ends = [{**end, **setting} for end in (builder.space.whole, builder.ends[-1])]
        ops = [builder.ops_at(end, "simulated") for end in ends]
        sums_us, _ = known_table.sums_us(ops)
        wholes.append(tuple(Whole(own, CALL_US + float(sum_us)) for own, sum_us in zip(ops, sums_us, strict=True)))
    sample = Sample("x", (1.0,), (1.0,))
    target = Target("dev_1", "sim", max_latency_ratio=0.5)
    return TimedDevice(target, known_table, tuple(wholes), sample, sample, Unrest())


def least(builder: ProblemBuilder, name: str) -> Values:
    return {**builder.space.whole, name: next(k for k in builder.space.knobs if k.name == name).least}


def curves(builder: ProblemBuilder) -> dict[str, np.ndarray]:
    """Each knob loses 4 points from its whole value to its least, evenly."""
    found = {}
    for knob in builder.space.levelled:
        rising = np.linspace(0.90, 0.94, knob.level_count)
        found[knob.name] = rising if knob.ordered else rising[::-1]
    return found


def rows(builder: ProblemBuilder, devices: list[TimedDevice], values: Values, told_ms: float) -> tuple[LayerRow, ...]:
    times = [NodeTimes(builder, device, values, told_ms) for device in devices]
    return LayerTable(builder, times, curves(builder), values, ACCURACY).rows()


def by_layer(found: tuple[LayerRow, ...]) -> dict[str, LayerRow]:
    named = {row.layer: row for row in found}
    assert len(named) == len(found)
    return named


def test_times_add_up_to_the_predictions(builder: ProblemBuilder, timed: TimedDevice) -> None:
    values = {**least(builder, "conv1"), "int8_ptq": "int8"}
    found = rows(builder, [timed], values, 0.1234)
    before, after = (sum(row.latency_ms["dev_1"][i] for row in found) for i in (0, 1))
    whole = builder.latency(timed.device).latency_ms(builder.space.levels_of([builder.whole]))
    assert (before, after) == pytest.approx((float(whole[0]), 0.1234))
    assert sum(row.share for row in found if row.share is not None) == pytest.approx(1.0)
    rest = by_layer(found)[WHOLE_NETWORK]
    assert rest.latency_ms["dev_1"][0] == pytest.approx(CALL_US / 1e3, rel=0.05)


def test_a_layer_that_was_cut_says_what_it_saves_and_costs(builder: ProblemBuilder, timed: TimedDevice) -> None:
    values = least(builder, "conv1")
    told_ms = float(builder.latency(timed.device).latency_ms(builder.space.levels_of([values]))[0])
    found = by_layer(rows(builder, [timed], values, told_ms))
    row = found["conv1"]
    assert (row.group, row.role, row.before, row.after) == ("conv1", "width", 32, values["conv1"])
    assert row.sensitivity == pytest.approx(0.04)
    before, after = row.latency_ms["dev_1"]
    assert before > after > 0
    said = f"32 -> {values['conv1']}: saves {before - after:.2g} ms of {before:.2g} ms; alone it costs 4.0 points"
    assert row.reason == said  # layers of microseconds keep their digits
    reader = found["conv2"]  # not cut itself, but it reads fewer channels
    assert (reader.before, reader.after, reader.sensitivity) == (32, 32, 0.0)
    assert reader.latency_ms["dev_1"][1] < reader.latency_ms["dev_1"][0]


def test_a_layer_kept_whole_says_what_a_cut_would_save(builder: ProblemBuilder, timed: TimedDevice) -> None:
    values = builder.whole
    terms = builder.latency(timed.device)
    now, cut = terms.latency_ms(builder.space.levels_of([values, least(builder, "conv0")]))
    row = by_layer(rows(builder, [timed], values, float(now)))["conv0"]
    to = least(builder, "conv0")["conv0"]
    saved = f"saves {now - cut:.2g} ms"
    assert row.reason == f"kept whole: cutting it to {to} {saved}; alone it costs 4.0 points"


def test_what_cannot_be_cut_says_why(builder: ProblemBuilder, timed: TimedDevice) -> None:
    found = by_layer(rows(builder, [timed], builder.whole, 0.1))
    assert (found["fc"].before, found["fc"].after, found["fc"].group, found["fc"].role) == (10, 10, None, None)
    assert found["fc"].reason == "kept whole: output of the network"
    pool = found["pool"]
    assert (pool.before, pool.after, pool.sensitivity, pool.reason) == (None, None, None, "no setting of its own")


def test_a_knob_of_the_whole_network_has_its_row(builder: ProblemBuilder, timed: TimedDevice) -> None:
    whole = by_layer(rows(builder, [timed], builder.whole, 0.1))[WHOLE_NETWORK]
    assert (whole.group, whole.role, whole.before, whole.after) == ("int8_ptq", "option", "fp32", "fp32")
    assert whole.reason.startswith("kept at fp32: int8 saves ")
    turned = by_layer(rows(builder, [timed], {**builder.whole, "int8_ptq": "int8"}, 0.1))[WHOLE_NETWORK]
    assert (turned.after, turned.sensitivity) == ("int8", pytest.approx(0.04))
    assert turned.reason == "fp32 -> int8 in every layer: alone it costs 4.0 points"


def test_two_devices_are_named_and_none_needs_no_time(builder: ProblemBuilder, timed: TimedDevice) -> None:
    values = least(builder, "conv1")
    other = replace(timed, target=replace(timed.target, device_id="dev_2", device_name="other"))
    told_ms = float(builder.latency(timed.device).latency_ms(builder.space.levels_of([values]))[0])
    row = by_layer(rows(builder, [timed, other], values, told_ms))["conv1"]
    assert row.latency_ms.keys() == {"dev_1", "dev_2"}
    assert " ms on sim; saves " in row.reason
    assert " ms on other; alone it costs" in row.reason
    bare = by_layer(rows(builder, [], values, 0.1))
    assert bare.keys() == {"conv0", "conv1", "conv2", "fc", WHOLE_NETWORK}
    assert bare["conv1"].reason == f"32 -> {values['conv1']}: alone it costs 4.0 points"
    assert (bare["conv1"].latency_ms, bare["conv1"].share) == ({}, None)


def test_the_reason_never_invents_a_cost(builder: ProblemBuilder) -> None:
    table = LayerTable(builder, [], {}, least(builder, "conv1"), ACCURACY)
    row = by_layer(table.rows())["conv1"]
    assert (row.sensitivity, row.reason) == (None, f"32 -> {row.after}")


@pytest.mark.parametrize(
    ("role", "options", "value", "said"),
    [("bits", (2, 8), 2, "8 -> 2 bits"), ("rank", (4, 16), 4, "rank 16 -> 4"), ("width", (4, 16), 4, "16 -> 4")],
)
def test_every_role_has_its_words(role: str, options: tuple[int, ...], value: int, said: str) -> None:
    knob = Choice("k", options, True, role=role, layers=("x",))  # type: ignore[arg-type]  # a role
    cut = LayerCut.of("x", [knob], {"k": value}, None)
    assert (cut.name, cut.before, cut.after) == ("k", options[-1], value)
    assert reason(cut, "x", [], {"k": np.array([0.95, 0.9])}, ACCURACY) == f"{said}: alone it gains 5.0 points"


def test_a_density_has_no_curve() -> None:
    knob = Float("density", 0.1, 1.0)
    cut = LayerCut.of(WHOLE_NETWORK, [knob], {"density": 0.25}, None)
    assert (cut.before, cut.after, cut.cost({"density": 0.25}, {"density": np.zeros(3)})) == (1.0, 0.25, None)


def test_the_knob_that_was_turned_is_the_one_shown(trained: Network) -> None:
    group = groups(fold_norms(trained))[0]
    width = Choice(group.name, (4, 8), True, role="width", layers=group.layers)
    bits = Choice("bits", (2, 8), True, role="bits", layers=group.layers)
    values = {group.name: 8, "bits": 2}
    assert LayerCut.of(group.layers[0], [width, bits], values, group).role == "bits"
    assert LayerCut.of(group.layers[0], [width, bits], {**values, "bits": 8}, group).role == "width"


def test_a_job_keeps_the_layers_of_every_finalist(job: Job, lock: HostLock) -> None:
    plan, ports = job(methods=(Named("filter_prune"), Named("int8_ptq")))
    outcome = run(plan, ports, lock)
    content = ports.files["report_json"].read_text()
    report = json.loads(content)
    assert len(report["finalists"]) == 2
    for each in report["finalists"]:
        named = {row["layer"]: row for row in each["layers"]}
        assert named.keys() >= {"conv0", "conv1", "conv2", "fc", "whole network"}
        for knob, value in each["values"].items():
            assert named["whole network" if knob == "int8_ptq" else knob]["after"] == value
        after_ms = sum(row["latency_ms"][DEVICE][1] for row in each["layers"] if row["latency_ms"])
        assert after_ms == pytest.approx(each["timed"][0]["predicted_ms"])
        assert all(row["sensitivity"] is not None for row in each["layers"] if row["group"])
    best = outcome.summaries["best"]["evaluation_id"].removesuffix("-timed")
    page = ports.files["report_html"].read_text()
    assert f"<h2>Layers of finalist-{best}</h2>" in page
    assert page.count("<h2>Layers of") == 1
    assert "<th>strategy</th>" in page
    chosen = next(each for each in report["finalists"] if each["candidate"] == best)
    for row in chosen["layers"]:
        assert html.escape(row["reason"]) in page
    run(plan, ports, lock)
    assert ports.files["report_json"].read_text() == content
