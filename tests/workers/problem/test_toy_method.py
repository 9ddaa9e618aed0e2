"""A method of another distribution is one file: a rank for every convolution, which is then taken apart into two.

Its knobs are no widths. What it makes is found from the outside, layer by layer: the networks looked at grow with the
sum of the options, and every count and latency is exactly that of the network that comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from conftest import tiny_network
from numpy.typing import NDArray

from compress.counting.cost import cost
from compress.counting.layer_facts import LayerFacts
from compress.evidence import Evidence
from compress.graph.edit import edited
from compress.graph.fold import fold_norms
from compress.graph.onnxruntime import run_onnxruntime
from compress.method import MethodFamily, Stage, Widths
from compress.network import Array, Network, Node
from compress.scheme import Scheme
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.tables.calibration import Calibration
from hw_profiles.tables.table import LatencyTable, Row
from hw_profiles.timing.copies_timing import time_ops
from hw_profiles.timing.protocol import BurstProtocol, Timing
from search.metrics import latency_metric
from search.problem import Objective, Problem
from search.space import Bounds, Choice, Doc, Knob, Values
from workers.judging.smaller_neighbour import smaller_neighbour
from workers.judging.timed import Timed
from workers.problem.builder import Device, ProblemBuilder, Wanted
from workers.problem.kernel_space import KernelSpace

LAYERS = 20
RANKS = (1, 2, 4)
"""The largest option, all 64 channels of a convolution, leaves it whole."""


@dataclass(frozen=True)
class Settings:
    """Settings of the toy."""

    least: Annotated[int, Doc("smallest rank that is tried"), Bounds(1, 64)] = 1


def layers(network: Network) -> Iterator[Node]:
    """The convolutions that can be taken apart."""
    for node in network.nodes:
        if node.op_type == "Conv":
            yield node


def halves(network: Network, node: Node, rank: int) -> tuple[list[Node], dict[str, Array]]:
    """A convolution to `rank` channels and one of single positions behind it: the best of that rank."""
    weight = network.constants[node.inputs[1]]
    u, s, v = np.linalg.svd(weight.reshape(len(weight), -1), full_matrices=False)
    inner, outer = f"{node.name}/inner", f"{node.name}/outer"
    constants = {
        inner: (s[:rank, None] * v[:rank]).reshape(rank, *weight.shape[1:]).astype(np.float32),
        outer: u[:, :rank].reshape(len(weight), rank, 1, 1).astype(np.float32),
    }
    first = Node("Conv", f"{node.name}/first", (node.inputs[0], inner), (f"{node.name}/between",), node.attributes)
    second = Node("Conv", node.name, (f"{node.name}/between", outer, *node.inputs[2:]), node.outputs, {})
    return [first, second], constants


@dataclass(frozen=True)
class Operator:
    """Takes apart the layers whose rank is below the whole one."""

    ranks: Mapping[str, object]
    stage: Stage = "structure"

    def rewrite(self, network: Network, evidence: Evidence) -> Network:
        nodes, constants = {node.name: [node] for node in network.nodes}, dict(network.constants)
        for node in layers(network):
            rank = self.ranks.get(f"rank:{node.name}")
            if isinstance(rank, int) and rank < len(network.constants[node.inputs[1]]):
                nodes[node.name], made = halves(network, node, rank)
                constants |= made
        if len(nodes) == sum(map(len, nodes.values())):
            return network
        return edited(network, [node for made in nodes.values() for node in made], constants)

    def project(self, network: Network, weights: Mapping[str, Array]) -> dict[str, Array]:
        return dict(weights)

    def projected(self, network: Network) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class Toy:
    """One knob a convolution."""

    settings: Settings

    def knobs(self, network: Network, widths: Widths) -> tuple[Knob, ...]:
        facts = LayerFacts(network)
        found = []
        for node in layers(network):
            whole = len(network.constants[node.inputs[1]])
            options = (*(rank for rank in RANKS if self.settings.least <= rank < whole), whole)
            found.append(Choice(f"rank:{node.name}", options, True, facts.of(node), "rank", (node.name,)))
        return tuple(found)

    def gather(
        self, network: Network, images: NDArray[np.float32], labels: NDArray[np.int64] | None, seed: int
    ) -> Evidence:
        """What is lost at each rank, without a pass over the data."""
        lost = {}
        for knob, node in zip(self.knobs(network, {}), layers(network), strict=True):
            weight = network.constants[node.inputs[1]]
            energy = np.linalg.svd(weight.reshape(len(weight), -1), compute_uv=False) ** 2
            assert isinstance(knob, Choice)
            lost[knob.name] = np.array([energy[int(rank) :].sum() / energy.sum() for rank in knob.options])
        return Evidence(known={"ls_error": lost})

    def bind(self, values: Values) -> Operator:
        return Operator({name: value for name, value in values.items() if name.startswith("rank:")})


METHOD = MethodFamily("toy_rank", "Takes convolutions apart.", "none", Settings, Toy, ("latency_ms", "macs"))


class Counted(KernelSpace):
    """Remembers how many networks were made of the whole one."""

    made = 0

    def rewritten(self, values: Values) -> Network:
        self.made += 1
        return super().rewritten(values)


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "toy_method-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-method\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[netlathe.methods]\ntoy_rank = {__name__}:METHOD\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def kernels(_installed: None) -> Counted:
    network = fold_norms(tiny_network((64,) * LAYERS))
    return Counted(network, Scheme.of([("toy_rank", {})]), {}, Evidence(), ["simulated"])


@pytest.fixture
def table(kernels: Counted) -> LatencyTable:
    """Every kernel that any candidate can contain."""
    runtime = SimulatedRuntime(overhead_us=1.0, contention=1.0)
    device, ops = runtime.configs("sim")[0], ProblemBuilder(kernels).ops("simulated")
    timed = time_ops(runtime, ops, device, BurstProtocol(min_rounds=5, max_rounds=5))
    return LatencyTable(device).updated(
        [Row.of(op, t) for op in ops if isinstance(t := timed[op.key], Timing)], epoch=1
    )


def problem_of(kernels: KernelSpace, table: LatencyTable) -> Problem:
    known = kernels.scheme.gather(kernels.network, np.zeros((1, 1, 8, 8), np.float32)).known
    wanted = Wanted((Objective("accuracy", "max"),), (), {}, "net", 10, known)
    return ProblemBuilder(kernels).problem([Device("dev_1", table, (Calibration(),))], wanted)


def test_the_networks_looked_at_grow_with_the_sum_of_the_options(kernels: Counted) -> None:
    assert len(kernels.tables) > LAYERS
    options = sum(kernels.space.level_counts)
    assert options == LAYERS * (len(RANKS) + 1)
    assert kernels.made <= 1 + options
    assert len(kernels.settings) == 1, "the rank of one layer is no setting of the whole network"
    by_node = {each.node: each for each in kernels.tables}
    for knob in kernels.space.levelled:
        assert [each.name for each in by_node[knob.layers[0]].knobs] == [knob.name]


def test_counts_are_those_of_the_network_taken_apart(kernels: Counted) -> None:
    builder, rng = ProblemBuilder(kernels), np.random.default_rng(0)
    image = rng.standard_normal((2, 1, 8, 8)).astype(np.float32)
    for _ in range(5):
        values = builder.space.sample(rng)
        network = kernels.rewritten(values)
        assert len(network.nodes) > len(kernels.network.nodes)
        assert np.isfinite(run_onnxruntime(network, image)[network.output_name]).all()
        counts, exact = builder.counts(values), cost(network)
        assert (counts["macs"], counts["parameters"]) == (exact.macs, exact.parameters)
        assert counts["nonzeros"] == exact.parameters
        assert counts["size_bytes"] == pytest.approx(exact.size_bytes, abs=100)  # the header's varints


def test_latency_is_the_tables_sum_of_the_network_taken_apart(kernels: Counted, table: LatencyTable) -> None:
    problem, rng = problem_of(kernels, table), np.random.default_rng(1)
    batch = [problem.space.sample(rng) for _ in range(5)]
    terms = problem.terms[latency_metric("dev_1")].latency_ms(problem.space.levels_of(batch))
    for values, latency_ms in zip(batch, terms, strict=True):
        ops = kernels.ops(kernels.rewritten(values), "simulated")
        assert len(ops) > LAYERS
        sum_us, _ = table.sums_us([ops])
        assert latency_ms == pytest.approx(float(sum_us[0]) / 1e3)


def test_ranks_have_facts_losses_and_a_smaller_neighbour(kernels: Counted, table: LatencyTable) -> None:
    problem = problem_of(kernels, table)
    assert problem.layer_losses.keys() == set(problem.space.names)
    least = {knob.name: knob.least for knob in problem.space.knobs}
    whole, lost = problem.proxy([problem.space.whole, least])
    assert whole == pytest.approx(0.0)
    assert lost > 1.0
    assert [knob.features["index"] for knob in problem.space.knobs] == list(range(LAYERS))
    floor = ProblemBuilder(kernels).floor_ms(Device("dev_1", table, (Calibration(),)))
    assert floor <= float(problem.terms[latency_metric("dev_1")].latency_ms(np.zeros((1, LAYERS), np.int64))[0])
    late = Timed("dev_1", "quiet", 1.0, 0.9, 1.1, 0.9, 1.0, 1.0, 1.05, 1.0, 1.1, 2.0, 1.0, excess=0.02)
    smaller = smaller_neighbour(problem, problem.space.whole, [late])
    assert smaller is not None
    ends_ms = problem.estimate([problem.space.whole, smaller])[latency_metric("dev_1")]
    assert ends_ms[1] < ends_ms[0] / 1.02
