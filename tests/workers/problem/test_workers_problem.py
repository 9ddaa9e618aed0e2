"""Kernels found from the outside, widths, and the problem made of them: exact against taking networks apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.counting.cost import cost
from compress.counting.node_cost import NodeCost
from compress.evidence import Evidence
from compress.graph.fold import fold_norms
from compress.graph.groups import prunable_blocks
from compress.importing.normalise import load_network
from compress.network import Network
from compress.scheme import Scheme
from hw_profiles.ops import Constant, Op, OpNode, TensorSpec
from hw_profiles.tables.calibration import Calibration
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.table import LatencyTable
from search.metrics import latency_metric
from search.problem import Constraint, Objective
from search.space import Choice, Value, Values
from search.space import InvalidInput as InvalidValue
from workers.errors import InvalidInput
from workers.problem.builder import Device, ProblemBuilder, Wanted
from workers.problem.kernel_space import KernelSpace
from workers.problem.kernel_survey import Look, node_tables
from workers.problem.kernel_table import Part
from workers.problem.widths import MOST_LEVELS, block_widths

WIDTHS = (4, 8, 12, 16)
KNOBS = tuple(Choice(name, WIDTHS, ordered=True) for name in "abc")


def conv(inputs: int, outputs: int) -> Op:
    return Op.of(
        [OpNode("Conv", ("in", "weight"), ("out",))],
        {"in": (TensorSpec((1, inputs, 4, 4)), "conv")},
        {"weight": Constant(TensorSpec((outputs, inputs, 1, 1)))},
        ["out"],
        17,
    )


def number(value: Value) -> int:
    assert isinstance(value, int)
    return value


class Rewriting:
    """a and b are two parts of one tensor, c is what a layer makes of it; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, batch: Sequence[Values]) -> list[Mapping[str, Part]]:
        self.asked += len(batch)
        return [self.parts(values) for values in batch]

    def parts(self, values: Values) -> Mapping[str, Part]:
        a, b, c = (number(values[name]) for name in "abc")
        return {
            "first": run(conv(3, a)),
            "join": run(conv(a + b, c)),
            "last": run(conv(c, 10)),
            "rest": run(conv(7, 7)),
        }


def run(*ops: Op) -> Part:
    return Part({"engine": ops}, NodeCost())


def looks(parts: Callable[[Values], Mapping[str, Part]]) -> Look:
    return lambda batch: [parts(values) for values in batch]


def test_nodes_depend_on_few_knobs_and_on_sums() -> None:
    found = {table.node: table for table in node_tables(Rewriting(), KNOBS)}
    assert {name: table.sums for name, table in found.items()} == {
        "first": (("a",),),
        "join": (("a", "b"), ("c",)),
        "last": (("c",),),
        "rest": (),
    }
    assert {name: len(table.distinct_parts) for name, table in found.items()} == {
        "first": 4,
        "join": 7 * 4,
        "last": 4,
        "rest": 1,
    }


def test_every_point_has_the_part_that_rewriting_gives() -> None:
    rewriting = Rewriting()
    found = node_tables(rewriting, KNOBS)
    looked_at = rewriting.asked
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = {knob.name: knob.sample(rng) for knob in KNOBS}
        expected = rewriting.parts(values)
        for table in found:
            assert table.parts[table.at(values)].mark == expected[table.node].mark
            assert table.distinct_parts[table.ids[table.levels(values)]].mark == expected[table.node].mark
    # 64 points in all, 28 of them distinct for the widest node: not many more networks than that are looked at.
    assert looked_at <= 28 + 20


def test_widths_that_do_not_add_up_stay_apart() -> None:
    def parts(values: Values) -> Mapping[str, Part]:
        return {"n": run(conv(number(values["a"]), number(values["b"]) + number(values["c"])))}

    (table,) = node_tables(looks(parts), KNOBS)
    assert table.sums == (("a",), ("b", "c"))


def test_a_node_may_become_no_kernel_or_several() -> None:
    def parts(values: Values) -> Mapping[str, Part]:
        a = number(values["a"])
        halves = (conv(3, a), conv(a, 16)) if a < 16 else (conv(3, 16),)
        return {"split": run(*halves), "norm": run() if a < 16 else run(conv(1, 1))}

    found = {table.node: table for table in node_tables(looks(parts), KNOBS)}
    assert [len(part.ops["engine"]) for part in found["split"].distinct_parts] == [2, 2, 2, 1]
    assert [len(part.ops["engine"]) for part in found["norm"].distinct_parts] == [0, 0, 0, 1]


def test_what_single_changes_do_not_show_is_found() -> None:
    """Two knobs that only matter together, and one that matters at neither end."""

    def parts(values: Values) -> Mapping[str, Part]:
        a, b, c = (number(values[name]) for name in "abc")
        return {
            "both": run(conv(3, 5 if a < 16 and b < 16 else 7)),
            "middle": run(conv(3, 4 if c == 8 else 9)),
            "c": run(conv(3, c)),
            "ab": run(conv(a, b)),
        }

    found = {table.node: table for table in node_tables(looks(parts), KNOBS)}
    assert {knob.name for knob in found["both"].knobs} == {"a", "b"}
    assert {knob.name for knob in found["middle"].knobs} == {"c"}
    for a, b, c in product(WIDTHS, repeat=3):
        values = {"a": a, "b": b, "c": c}
        for name, part in parts(values).items():
            assert found[name].parts[found[name].at(values)].mark == part.mark


def test_networks_looked_at_grow_with_the_sum_of_the_options() -> None:
    """Twenty layers, each in one of three ways of its own: 3 ** 20 networks, of which few are looked at."""
    layers = [Choice(f"way{i}", ("plain", "split", "shared"), ordered=False, layers=(f"layer{i}",)) for i in range(20)]
    asked = []

    def look(batch: Sequence[Values]) -> list[Mapping[str, Part]]:
        asked.extend(batch)
        kinds = {"plain": (conv(8, 8),), "split": (conv(8, 2), conv(2, 8)), "shared": ()}
        return [{knob.layers[0]: run(*kinds[str(values[knob.name])]) for knob in layers} for values in batch]

    found = node_tables(look, layers)
    assert [len(part.ops["engine"]) for part in found[3].distinct_parts] == [1, 2, 0]
    assert len(asked) <= 1 + 20 * 2


def test_too_many_points_are_refused() -> None:
    many = tuple(Choice(f"k{i}", tuple(range(1, 9)), ordered=True) for i in range(6))

    def parts(values: Values) -> Mapping[str, Part]:
        # No two knobs trade against each other.
        return {"n": run(conv(1 + sum(number(values[k.name]) * 10**i for i, k in enumerate(many)), 1))}

    with pytest.raises(InvalidInput, match="use fewer levels"):
        node_tables(looks(parts), many)


@pytest.fixture(scope="module")
def builder(trained: Network, known_table: LatencyTable) -> ProblemBuilder:
    folded = fold_norms(trained)
    blocks = prunable_blocks(folded)
    images = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype(np.float32)
    evidence = Evidence(images, {block.name: np.ones(block.width) for block in blocks})
    widths = block_widths(blocks, [known_table.classes])
    scheme = Scheme.of([("filter_prune", {}), ("int8_ptq", {})])
    return ProblemBuilder(KernelSpace(folded, scheme, widths, evidence, ["simulated"]))


def device(builder: ProblemBuilder, table: LatencyTable, *lines: Calibration) -> Device:
    return Device("dev_1", table, lines or (Calibration(),) * len(builder.settings))


def wanted(*constraints: Constraint) -> Wanted:
    return Wanted((Objective("accuracy", "max"),), constraints, {"accuracy": 0.9}, "net", 10, {})


def test_counts_are_those_of_the_network_itself(builder: ProblemBuilder) -> None:
    rng = np.random.default_rng(1)
    for _ in range(8):
        values = builder.space.sample(rng)
        counts = builder.counts(values)
        network = builder.kernels.rewritten(values)
        fp32 = builder.kernels.rewritten({**values, "int8_ptq": "fp32"})
        assert (counts["macs"], counts["parameters"]) == (cost(fp32).macs, cost(fp32).parameters)
        # The graph's own bytes vary by the lengths of its varints.
        assert counts["size_bytes"] == pytest.approx(cost(network).size_bytes, abs=100)


def test_latency_is_the_devices_line_over_the_tables_sum(builder: ProblemBuilder, known_table: LatencyTable) -> None:
    fp32, int8 = Calibration(a_us=3.0, b=1.1), Calibration(a_us=5.0, b=0.9)
    problem = builder.problem([device(builder, known_table, fp32, int8)], wanted())
    rng = np.random.default_rng(2)
    batch = [problem.space.sample(rng) for _ in range(12)]
    assert {values["int8_ptq"] for values in batch} == {"fp32", "int8"}
    predicted = problem.estimate(batch)[latency_metric("dev_1")]
    for values, predicted_ms in zip(batch, predicted, strict=True):
        ops = builder.kernels.ops(builder.kernels.rewritten(values), "simulated")
        line = int8 if values["int8_ptq"] == "int8" else fp32
        sum_us, _ = known_table.sums_us([ops])
        assert predicted_ms == pytest.approx(float(line.latency_us(sum_us)[0]) / 1e3)


def test_equal_terms_and_estimates(builder: ProblemBuilder, known_table: LatencyTable) -> None:
    problem = builder.problem([device(builder, known_table)], wanted())
    batch = [problem.space.sample(np.random.default_rng(i)) for i in range(5)]
    terms = problem.terms[latency_metric("dev_1")]
    assert terms.latency_ms(problem.space.levels_of(batch)) == pytest.approx(
        problem.estimate(batch)[latency_metric("dev_1")]
    )


def test_nothing_is_under_the_floor(builder: ProblemBuilder, known_table: LatencyTable) -> None:
    own = device(builder, known_table)
    floor_ms = builder.floor_ms(own)
    levels = np.indices(builder.space.level_counts).reshape(len(builder.space.levelled), -1).T
    assert 0 < floor_ms <= builder.latency(own).latency_ms(levels).min() * (1 + 1e-12)


def test_frequencies_are_expected_occurrences(builder: ProblemBuilder) -> None:
    rng = np.random.default_rng(3)
    counts = [len(builder.ops_at(builder.space.sample(rng), "simulated")) for _ in range(400)]
    assert sum(builder.frequencies("simulated").values()) == pytest.approx(np.mean(counts), rel=0.05)


def test_the_table_has_the_kernels_that_taking_apart_gives(builder: ProblemBuilder) -> None:
    rng = np.random.default_rng(4)
    for _ in range(8):
        values = builder.space.sample(rng)
        taken_apart = builder.kernels.ops(builder.kernels.rewritten(values), "simulated")
        assert sorted(op.key for op in builder.ops_at(values, "simulated")) == sorted(op.key for op in taken_apart)


def test_a_network_without_knobs_is_refused(trained: Network) -> None:
    scheme = Scheme.of([("int8_ptq", {"keep_float": ["conv0", "conv1", "conv2", "fc"]})])
    with pytest.raises(InvalidInput, match="no method can change anything"):
        KernelSpace(trained, scheme, {}, Evidence(), ())


def reused(times: int = 4) -> Network:
    """One convolution that serves each part of a tensor, and another behind it that reads their sum."""
    rng = np.random.default_rng(0)
    shapes = {"stem.weight": (8 * times, 1, 3, 3), "block.weight": (12, 8, 3, 3), "last.weight": (16, 12, 3, 3)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {"sizes": np.array([8] * times), "fc.weight": rng.standard_normal((10, 16)).astype(np.float32)}
    parts, made = [f"s{i}" for i in range(times)], [f"b{i}" for i in range(times)]
    nodes = [
        helper.make_node("Conv", ["image", "stem.weight"], ["stem"], "stem", pads=[1] * 4),
        helper.make_node("Split", ["stem", "sizes"], parts, "split", axis=1),
        *(
            helper.make_node("Conv", [x, "block.weight"], [y], y, pads=[1] * 4)
            for x, y in zip(parts, made, strict=True)
        ),
        helper.make_node("Add", made[:2], ["sum0"], "sum0"),
        *(helper.make_node("Add", [f"sum{i}", made[i + 2]], [f"sum{i + 1}"], f"sum{i + 1}") for i in range(times - 2)),
        helper.make_node("Conv", [f"sum{times - 2}", "last.weight"], ["last"], "last", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["last"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "fc.weight"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "reused",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return load_network(model.SerializeToString())


@pytest.mark.parametrize("methods", [("filter_prune",), ("filter_prune", "weight_prune"), ("filter_prune", "int8_ptq")])
def test_a_weight_that_is_used_again_counts_once(methods: tuple[str, ...]) -> None:
    network = reused()
    blocks = prunable_blocks(network)
    scheme = Scheme.of([(name, {}) for name in methods])
    widths = {block.name: (block.width // 2, block.width) for block in blocks}
    evidence = Evidence(np.zeros((4, 1, 8, 8), np.float32), {block.name: np.ones(block.width) for block in blocks})
    builder = ProblemBuilder(KernelSpace(network, scheme, widths, evidence))
    for halved in ("block", "stem"):
        values = {**builder.whole, halved: widths[halved][0]}
        real, counted = cost(builder.kernels.rewritten(values)), builder.counts(values)
        assert (counted["parameters"], counted["macs"]) == (real.parameters, real.macs)
        assert counted["nonzeros"] == real.nonzeros
        assert counted["size_bytes"] == pytest.approx(real.size_bytes, abs=64)


@pytest.mark.parametrize("methods", [("filter_prune", "weight_prune", "fp16"), ("weight_prune",)])
def test_a_density_changes_no_kernel(trained: Network, known_table: LatencyTable, methods: tuple[str, ...]) -> None:
    folded = fold_norms(trained)
    blocks = prunable_blocks(folded)
    scheme = Scheme.of([(name, {}) for name in methods])
    widths = {block.name: (block.width // 2, block.width) for block in blocks}
    evidence = Evidence(importance={block.name: np.ones(block.width) for block in blocks})
    kernels = KernelSpace(folded, scheme, widths, evidence, ["simulated"])
    builder = ProblemBuilder(kernels)
    problem = builder.problem([], wanted())
    assert [knob.name for knob in kernels.densities] == ["weight_prune"]
    halves = {name: sizes[0] for name, sizes in widths.items()} | {"fp16": "fp16"}
    values: dict[str, Value] = {name: value for name, value in halves.items() if name in builder.space.names}
    sparse, dense = (problem.estimate([values | {"weight_prune": density}]) for density in (0.1, 1.0))
    exact = cost(kernels.rewritten(values | {"weight_prune": 0.1}))
    single = {name: value for name, value in values.items() if name != "fp16"} | {"fp16": "fp32"}
    plain = {name: value for name, value in single.items() if name in builder.space.names}
    assert {name: column for name, column in sparse.items() if name not in ("nonzeros", "stored_bytes")} == {
        name: column for name, column in dense.items() if name not in ("nonzeros", "stored_bytes")
    }
    assert dense["nonzeros"] == dense["parameters"]
    counted = cost(kernels.rewritten(plain | {"weight_prune": 0.1}))
    assert sparse["nonzeros"][0] == pytest.approx(counted.nonzeros, abs=1)
    assert exact.stored_bytes == pytest.approx(sparse["stored_bytes"][0], rel=0.1)
    assert sparse["size_bytes"][0] == pytest.approx(exact.size_bytes, rel=0.02)
    assert builder.counts(values | {"weight_prune": 0.1})["macs"] == exact.macs
    with pytest.raises(InvalidValue, match="no value"):
        problem.estimate([values])


def test_widths_follow_what_the_device_rewards(trained: Network) -> None:
    blocks = prunable_blocks(trained)
    wide = next(block for block in blocks if block.width == 32)
    free = block_widths([wide], [], most=100)[wide.name]
    assert free == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 24, 26, 28, 30, 32)
    aligned = KernelClasses(out_step=16, in_step=16, in_modulus=4, in_threshold=16, slow_path=1.5)
    assert block_widths([wide], [aligned], most=100)[wide.name] == (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 32)
    finer = KernelClasses(out_step=8, in_step=4, in_modulus=4, in_threshold=4, slow_path=2.0)
    assert block_widths([wide], [finer], most=100)[wide.name] == (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32)


def test_widths_are_those_that_the_methods_take(trained: Network) -> None:
    wide = next(block for block in prunable_blocks(trained) if block.width == 32)
    assert block_widths([wide], [], taken={wide.name: (8, 16)})[wide.name] == (8, 16, 32)


def test_widths_are_few_and_keep_both_ends(trained: Network) -> None:
    for name, widths in block_widths(prunable_blocks(trained), []).items():
        assert len(widths) <= MOST_LEVELS, name
        assert widths[0] == 1
        assert widths == tuple(sorted(set(widths)))
