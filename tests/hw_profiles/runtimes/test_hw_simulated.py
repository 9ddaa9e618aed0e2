from __future__ import annotations

import numpy as np
import onnx
import pytest
from hw_blocks import BLOCKS, conv
from hw_networks import ResidualNetwork, random_networks

from hw_profiles.errors import InvalidInput
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime, VirtualClock
from hw_profiles.testing import small_network
from hw_profiles.timing.copies_timing import slope_models, time_ops
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample, Timing

PROTOCOL = BurstProtocol(min_rounds=20, max_rounds=20)


def block_us(runtime: SimulatedRuntime, into: int, out: int) -> float:
    low, high = slope_models(conv(into=into, out=out, size=16))
    return (runtime.truth_us(high) - runtime.truth_us(low)) / 3


def test_output_channels_cost_by_steps() -> None:
    runtime = SimulatedRuntime()
    assert block_us(runtime, 32, 17) == pytest.approx(block_us(runtime, 32, 31), rel=0.05)
    assert block_us(runtime, 32, 33) > 1.3 * block_us(runtime, 32, 32)


def test_input_channels_off_the_modulus_cost_more_than_more_channels() -> None:
    runtime = SimulatedRuntime()
    assert block_us(runtime, 31, 32) > 1.4 * block_us(runtime, 32, 32)
    assert block_us(runtime, 28, 32) == pytest.approx(block_us(runtime, 32, 32), rel=0.06)
    assert block_us(runtime, 15, 32) < block_us(runtime, 16, 32)


def test_a_call_costs_its_overhead() -> None:
    model = small_network()
    assert SimulatedRuntime(overhead_us=70).truth_us(model) == pytest.approx(
        70.0 + SimulatedRuntime(overhead_us=0).truth_us(model)
    )


def test_the_quiet_latency_is_the_truth_up_to_the_drift_while_the_median_is_not() -> None:
    model = small_network()
    runtime = SimulatedRuntime(seed=5)
    truth_us = runtime.truth_us(model)
    results = runtime.time({str(i): model for i in range(40)}, runtime.configs("sim")[0], PROTOCOL)
    timings = [r.timing() for r in results.values() if isinstance(r, Sample)]
    assert len(timings) == 40
    for timing in timings:
        assert timing.quiet_us == pytest.approx(truth_us, rel=0.035)
    assert np.mean([timing.p95_us for timing in timings]) > 1.5 * truth_us


def test_sessions_drift_by_a_common_factor() -> None:
    runtime = SimulatedRuntime(seed=5, contention=1.0)
    models = {"small": small_network(), "large": ResidualNetwork(((16, 16), (32, 32))).model()}
    device = runtime.configs("sim")[0]
    ratios = []
    for _ in range(6):
        results = runtime.time(models, device, PROTOCOL)
        ratios.append(
            [r.timing().quiet_us / runtime.truth_us(models[k]) for k, r in results.items() if isinstance(r, Sample)]
        )
    spread = np.array(ratios)
    assert np.ptp(spread[:, 0]) > 0.005
    assert np.abs(spread[:, 0] - spread[:, 1]).max() < 0.005
    assert np.abs(spread - 1.0).max() < 0.035


def test_the_same_seed_gives_the_same_figures() -> None:
    ops = [BLOCKS["conv"], BLOCKS["gemm"], BLOCKS["slice"]]

    def figures(seed: int) -> list[Timing | Failure]:
        runtime = SimulatedRuntime(seed=seed)
        return list(time_ops(runtime, ops, runtime.configs("sim")[0], BurstProtocol()).values())

    assert figures(3) == figures(3)
    assert figures(3) != figures(4)


def test_no_real_time_passes_and_contention_doubles() -> None:
    clock = VirtualClock(seed=0, contention=2.0, contended_share=1.0)
    clock.run(1.0)
    assert 2.0 <= clock() < 2.1


def test_fused_sets_by_pattern() -> None:
    names = [set(names) for names in SimulatedRuntime().fused(small_network())]
    assert {"node of c0", "node of r0"} in names
    assert {"node of c1", "node of a1", "node of r1"} in names
    assert {"node of logits"} in names


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_can_be_timed(name: str) -> None:
    op = BLOCKS[name]
    runtime = SimulatedRuntime(contention=1.0, drift=0.0)
    timing = time_ops(runtime, [op], runtime.configs("sim")[0], BurstProtocol())[op.key]
    assert isinstance(timing, Timing)
    assert timing.quiet_us > -0.5
    assert timing.extra.get("suspect") != "fusion_mismatch"


def test_shapes_must_be_known() -> None:
    model = onnx.load_model_from_string(small_network())
    model.graph.node[6].op_type = "Unknown"
    with pytest.raises(InvalidInput, match="model"):
        SimulatedRuntime().truth_us(model.SerializeToString())


def test_random_networks_are_valid_and_run() -> None:
    from hw_profiles.runtimes.onnxruntime.engine import OnnxRuntime

    runtime = OnnxRuntime()
    network = random_networks(1, seed=0)[0]
    onnx.checker.check_model(onnx.load_model_from_string(network.model()), full_check=True)
    results = runtime.time(
        {"net": network.model()}, runtime.configs("bench")[0], BurstProtocol(min_rounds=2, max_rounds=2, round_s=0.0)
    )
    assert isinstance(results["net"], Sample)
    assert len(runtime.fused(network.model())) == len(network.blocks)
