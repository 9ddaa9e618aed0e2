from __future__ import annotations

import math

import numpy as np
import pytest

from hw_profiles.errors import InvalidInput
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.probe import learn, probe
from hw_profiles.timing.copies_timing import time_ops
from hw_profiles.timing.protocol import BurstProtocol, Timing

COUNTS = range(1, 66)


def noisy(curve: dict[int, float], relative: float = 0.003) -> dict[int, float]:
    rng = np.random.default_rng(0)
    return {count: latency * (1 + relative * rng.standard_normal()) for count, latency in curve.items()}


def staircase(step: int) -> dict[int, float]:
    return noisy({count: 5.0 + 10.0 * math.ceil(count / step) * step / 16 for count in COUNTS})


def cliff(modulus: int, threshold: int, step: int, price: float) -> dict[int, float]:
    def latency_us(count: int) -> float:
        if count < threshold:
            return 5.8 + 0.6 * count
        if count % modulus:
            return price * (5.8 + 0.6 * count)
        return 5.8 + 0.6 * math.ceil(count / step) * step

    return noisy({count: latency_us(count) for count in COUNTS})


@pytest.mark.parametrize("step", [4, 8, 16, 32])
def test_a_staircase_in_output_channels(step: int) -> None:
    assert learn(staircase(step), cliff(4, 16, 16, 1.8)).out_step == step


@pytest.mark.parametrize(("modulus", "threshold", "step"), [(4, 16, 16), (8, 8, 8), (16, 16, 16), (2, 8, 4)])
def test_a_cliff_in_input_channels(modulus: int, threshold: int, step: int) -> None:
    classes = learn(staircase(16), cliff(modulus, threshold, step, 1.8))
    assert (classes.in_modulus, classes.in_threshold, classes.in_step) == (modulus, threshold, step)
    assert classes.slow_path == pytest.approx(1.8, rel=0.15)


def test_a_smooth_device_gets_trivial_classes() -> None:
    line = noisy({count: 5.0 + 0.7 * count for count in COUNTS})
    assert learn(line, line).trivial
    assert learn(line, line) == KernelClasses()


def test_the_simulated_device_through_the_protocol() -> None:
    runtime = SimulatedRuntime(seed=2)
    curves = probe()
    timings = time_ops(runtime, curves.ops, runtime.configs("sim")[0], BurstProtocol())
    latencies = {key: t.quiet_us for key, t in timings.items() if isinstance(t, Timing)}
    assert len(latencies) == len(curves.ops)
    classes = curves.learn(latencies)
    assert (classes.out_step, classes.in_step, classes.in_modulus, classes.in_threshold) == (16, 16, 4, 16)


def test_missing_points_are_left_out_until_half_is_missing() -> None:
    curves = probe()
    latencies = {op.key: us for curve, points in ((curves.out, staircase(16)), (curves.into, cliff(4, 16, 16, 1.8)))
                 for (_, op), us in zip(curve.items(), points.values(), strict=True)}  # fmt: skip
    some = {key: us for index, (key, us) in enumerate(latencies.items()) if index % 5}
    assert curves.learn(some).out_step == 16
    with pytest.raises(InvalidInput, match="at least half"):
        curves.learn({})


def test_kernel_classes() -> None:
    classes = KernelClasses(out_step=16, in_step=16, in_modulus=4, in_threshold=16, slow_path=1.8)
    assert [classes.is_slow(count) for count in (3, 15, 16, 17, 20, 30)] == [False, False, False, True, False, True]
    assert [classes.effective_in(count) for count in (3, 15, 16, 17, 20, 30)] == [3, 15, 16, 17, 32, 30]
    assert classes.effective_out(17) == 32
    assert KernelClasses.from_json(classes.to_json()) == classes
    with pytest.raises(InvalidInput, match="classes"):
        KernelClasses.from_json({"step": 16})
    with pytest.raises(InvalidInput, match="out_step"):
        KernelClasses(out_step=0)
