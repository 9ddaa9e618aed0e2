from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from hw_profiles.errors import InvalidInput
from hw_profiles.timing import protocol as timing
from hw_profiles.timing.bursts import FIRST_WARM_RUNS, run_bursts
from hw_profiles.timing.protocol import Failure, Sample, Timing, bootstrap_upper, split_half, statistic_us

# rounds here take no time of their own
BurstProtocol = partial(timing.BurstProtocol, min_rounds=5, round_s=0.0)


class Machine:
    """A clock that stands still except while a call runs, and remembers which call ran."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.ran: list[str] = []

    def clock(self) -> float:
        return self.now_s

    def call(self, name: str, *latencies_us: float) -> object:
        """A call whose runs take these latencies in turn."""
        count = 0

        def run() -> None:
            nonlocal count
            self.now_s += latencies_us[count % len(latencies_us)] * 1e-6
            self.ran.append(name)
            count += 1

        return run


def sample(*minima_us: float, medians: tuple[float, ...] | None = None) -> Sample:
    return Sample("key", minima_us, medians or minima_us)


def test_a_burst_is_warm_runs_then_timed_runs() -> None:
    machine = Machine()
    protocol = BurstProtocol(warm_runs=1, timed_runs=6, min_rounds=2, max_rounds=2)
    result = run_bursts({"a": machine.call("a", 10.0)}, protocol, clock=machine.clock)["a"]
    assert isinstance(result, Sample)
    assert len(machine.ran) == FIRST_WARM_RUNS + 6 + 1 + 6
    assert result.minima_us == pytest.approx((10.0, 10.0))


def test_minimum_and_median_of_each_burst_are_kept() -> None:
    machine = Machine()
    protocol = BurstProtocol(warm_runs=0, timed_runs=3, min_rounds=2, max_rounds=2, split_half=0.01)
    # three warm runs at first, then bursts of (5, 7, 9)
    result = run_bursts({"a": machine.call("a", 5.0, 7.0, 9.0)}, protocol, clock=machine.clock)["a"]
    assert isinstance(result, Sample)
    assert result.minima_us == pytest.approx((5.0, 5.0))
    assert result.medians_us == pytest.approx((7.0, 7.0))


def test_each_round_visits_all_pending_models_in_an_order_of_its_own() -> None:
    machine = Machine()
    protocol = BurstProtocol(warm_runs=0, timed_runs=1, min_rounds=8, max_rounds=8)
    names = ["a", "b", "c", "d"]
    run_bursts({name: machine.call(name, 10.0) for name in names}, protocol, clock=machine.clock)
    per_burst = [FIRST_WARM_RUNS + 1] * 4 + [1] * 28
    order = [machine.ran[sum(per_burst[:i])] for i in range(32)]
    rounds = [tuple(order[i : i + 4]) for i in range(0, 32, 4)]
    assert all(sorted(visited) == names for visited in rounds)
    assert len(set(rounds)) > 3


def test_a_steady_model_stops_first_and_a_restless_one_is_suspect() -> None:
    machine = Machine()
    calls = {"steady": machine.call("steady", 10.0), "restless": machine.call("restless", 10.0, 13.0)}
    protocol = BurstProtocol(warm_runs=0, timed_runs=1, min_rounds=5, max_rounds=15, round_step=5)
    results = run_bursts(calls, protocol, clock=machine.clock)
    steady, restless = results["steady"], results["restless"]
    assert isinstance(steady, Sample)
    assert isinstance(restless, Sample)
    assert (steady.bursts, restless.bursts) == (5, 15)
    assert "suspect" not in steady.extra
    assert restless.extra["suspect"] == "unsettled"


def test_equal_minimum_and_maximum_of_rounds_pair_the_samples() -> None:
    machine = Machine()
    calls = {"a": machine.call("a", 10.0), "b": machine.call("b", 10.0, 12.0, 17.0)}
    results = run_bursts(calls, BurstProtocol(min_rounds=7, max_rounds=7), clock=machine.clock)
    assert {r.bursts for r in results.values() if isinstance(r, Sample)} == {7}


def test_short_rounds_are_stretched_over_a_disturbance() -> None:
    machine = Machine()
    rests_s: list[float] = []

    def sleep(rest_s: float) -> None:
        rests_s.append(rest_s)
        machine.now_s += rest_s

    protocol = BurstProtocol(warm_runs=0, timed_runs=1, min_rounds=5, max_rounds=5, round_s=0.2)
    run_bursts({"a": machine.call("a", 1000.0)}, protocol, clock=machine.clock, sleep=sleep)
    assert rests_s == pytest.approx([0.196, 0.199, 0.199, 0.199])
    rests_s.clear()
    restless = BurstProtocol(warm_runs=0, timed_runs=1, min_rounds=2, max_rounds=4, round_step=1, round_s=0.2)
    calls = {"b": machine.call("b", 1000.0, 1500.0)}
    run_bursts(calls, restless, clock=machine.clock, sleep=sleep)
    assert len(rests_s) == 3
    assert rests_s[1] == pytest.approx(0.05, abs=0.002)
    long = BurstProtocol(warm_runs=1, timed_runs=1, min_rounds=3, max_rounds=3, round_s=0.001)
    run_bursts({"a": machine.call("a", 1000.0)}, long, clock=machine.clock, sleep=sleep)
    assert len(rests_s) == 3


def test_a_call_that_raises_is_a_failure_and_the_others_go_on() -> None:
    machine = Machine()

    def broken() -> None:
        raise MemoryError("too big")

    results = run_bursts(
        {"bad": broken, "good": machine.call("good", 10.0)}, BurstProtocol(max_rounds=5), clock=machine.clock
    )
    assert results["bad"] == Failure("bad", "MemoryError: too big", "run")
    assert isinstance(results["good"], Sample)


def test_a_clock_that_stands_still_is_a_failure() -> None:
    result = run_bursts({"a": lambda: None}, BurstProtocol(max_rounds=5), clock=lambda: 1.0)["a"]
    assert isinstance(result, Failure)
    assert result.kind == "clock"


def test_statistics_of_a_sample() -> None:
    rounds = sample(*(float(i) for i in range(1, 101)), medians=tuple(float(i) for i in range(101, 201)))
    assert statistic_us(rounds, "quiet") == pytest.approx(5.95)
    assert statistic_us(rounds, "p50") == pytest.approx(150.5)
    assert statistic_us(rounds, "p95") == pytest.approx(195.05)
    with pytest.raises(InvalidInput, match="statistic"):
        statistic_us(rounds, "mean")


def test_split_half_compares_even_and_odd_rounds() -> None:
    assert split_half((10.0, 10.0, 10.0, 10.0)) == 0.0
    assert split_half((10.0, 11.0, 10.0, 11.0)) == pytest.approx(1.0 / 10.5)
    assert split_half((10.0,)) == 1.0


def test_a_noisy_host_is_flagged() -> None:
    quiet, noisy = sample(10.0, 10.0), sample(10.0, 10.0, medians=(14.0, 14.0))
    assert "noisy_host" not in quiet.timing().extra
    assert noisy.timing().extra["noisy_host"] is True


def test_wrong_values_name_the_field() -> None:
    with pytest.raises(InvalidInput, match="minima_us"):
        Sample("key", (1.0,), (1.0, 2.0))
    with pytest.raises(InvalidInput, match="finite and above 0"):
        sample(1.0, 0.0)
    with pytest.raises(InvalidInput, match="max_rounds: must be at least min_rounds, 5"):
        BurstProtocol(max_rounds=4)
    with pytest.raises(InvalidInput, match="timed_runs"):
        BurstProtocol(timed_runs=0)
    with pytest.raises(InvalidInput, match="round_s"):
        BurstProtocol(round_s=-1.0)
    with pytest.raises(InvalidInput, match="quiet_us"):
        Timing(float("nan"), 1.0, 1.0, 0.0, 5)


def noisy(latency_us: float, rounds: int, seed: int) -> Sample:
    minima = latency_us * (1.0 + 0.01 * np.random.default_rng(seed).exponential(size=rounds))
    return sample(*minima.tolist())


def test_the_bootstrap_bound_lies_above_the_estimate_and_narrows_with_rounds() -> None:
    few, many = noisy(100.0, 8, 0), noisy(100.0, 200, 0)
    for rounds in (few, many):
        assert bootstrap_upper(rounds, None) >= statistic_us(rounds, "quiet")
    assert bootstrap_upper(many, None) - statistic_us(many, "quiet") < bootstrap_upper(few, None) - statistic_us(
        few, "quiet"
    )


def test_the_bound_of_a_ratio_covers_the_true_ratio() -> None:
    below = [
        bootstrap_upper(noisy(70.0, 30, 2 * s), noisy(100.0, 30, 2 * s + 1), resamples=400, seed=s) < 0.7
        for s in range(60)
    ]
    assert sum(below) <= 6  # 2.5 % are meant; the bootstrap of a low percentile is a little liberal


def test_pairing_keeps_shared_disturbances_out_of_the_ratio() -> None:
    rng = np.random.default_rng(0)
    shared = 1.0 + rng.random(20)
    one, other = (sample(*(latency * shared).tolist()) for latency in (70.0, 100.0))
    assert bootstrap_upper(one, other, "p50") == pytest.approx(0.7)
    unpaired = sample(*other.minima_us[:-1])
    assert bootstrap_upper(one, unpaired, "p50") > 0.75


def test_the_bound_is_a_function_of_the_seed() -> None:
    one = noisy(100.0, 10, 0)
    assert bootstrap_upper(one, None, seed=3) == bootstrap_upper(one, None, seed=3)
