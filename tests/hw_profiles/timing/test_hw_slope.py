from __future__ import annotations

import pytest
from hw_blocks import block, conv, node

from hw_profiles.errors import InvalidInput
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.timing.copies_timing import COPIES, slope_models, slope_timing, time_ops
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample, Timing


def steady(latency_us: float, spread_us: float = 0.0, **extra: str) -> Sample:
    minima = tuple(latency_us + spread_us * (i % 3) for i in range(12))
    return Sample("key", minima, minima, extra)


def test_what_both_models_pay_cancels() -> None:
    timing = slope_timing(steady(70.0 + 50.0), steady(70.0 + 200.0))
    assert timing.quiet_us == pytest.approx(50.0)
    assert timing.p50_us == pytest.approx(50.0)
    assert timing.extra["call_us"] == pytest.approx(120.0)
    assert timing.extra["sigma_us"] == 0.0
    assert timing.bursts == 12


def test_the_standard_deviation_follows_the_noise() -> None:
    timing = slope_timing(steady(120.0, 3.0), steady(270.0, 3.0))
    assert 0.0 < timing.extra["sigma_us"] < 3.0


def test_a_negative_slope_and_a_suspect_sample_are_suspect() -> None:
    assert slope_timing(steady(100.0), steady(90.0)).extra["suspect"] == "negative_slope"
    assert "suspect" not in slope_timing(steady(100.0), steady(101.0)).extra
    assert slope_timing(steady(10.0, suspect="unsettled"), steady(20.0)).extra["suspect"] == "unsettled"


def test_copies_must_rise() -> None:
    with pytest.raises(InvalidInput, match="copies"):
        slope_timing(steady(1.0), steady(2.0), (4, 4))


def test_the_slope_is_the_difference_of_the_models() -> None:
    runtime = SimulatedRuntime(drift=0.0, contention=1.0)
    op = conv(into=32, out=32)
    low, high = (runtime.truth_us(model) for model in slope_models(op))
    timing = time_ops(runtime, [op], runtime.configs("sim")[0], BurstProtocol())[op.key]
    assert isinstance(timing, Timing)
    assert timing.quiet_us == pytest.approx((high - low) / (COPIES[1] - COPIES[0]), rel=0.01)


def test_an_op_that_cannot_be_modelled_or_run_is_a_failure() -> None:
    good = conv()
    unmodelled = block([node("MatMul", "a w", "y")], {"a": ((1, 4), "gemm")}, {"w": (5, 8)})
    unrunnable = block([node("Conv", "a w", "y")], {"a": ((1, 4, 8, 8), "conv")}, {"w": (8, 5, 3, 3)})
    from hw_profiles.runtimes.onnxruntime.engine import OnnxRuntime

    runtime = OnnxRuntime()
    protocol = BurstProtocol(min_rounds=2, max_rounds=2, round_s=0.0)
    results = time_ops(runtime, [unmodelled, good, unrunnable], runtime.configs("bench")[0], protocol)
    assert isinstance(results[good.key], Timing)
    failures = {key: r for key, r in results.items() if isinstance(r, Failure)}
    assert {failures[unmodelled.key].kind, failures[unrunnable.key].kind} == {"model", "load"}
