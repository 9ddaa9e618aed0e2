from __future__ import annotations

import numpy as np
import pytest

from hw_profiles.errors import InvalidInput
from hw_profiles.tables.calibration import Calibration, calibrate


def networks(count: int, seed: int = 0, noise: float = 0.01) -> tuple[list[float], list[float], list[float]]:
    """(sums, sigmas, measured) of networks that follow 60 + 1.05 * sum."""
    rng = np.random.default_rng(seed)
    sums = rng.uniform(300, 1200, count)
    measured = (60 + 1.05 * sums) * (1 + noise * rng.standard_normal(count))
    return sums.tolist(), (0.01 * sums).tolist(), measured.tolist()


def test_without_networks_it_is_the_documented_prior() -> None:
    prior = calibrate([], [], [])
    assert prior == Calibration(a_us=0.0, b=1.0, networks=0, loo_mape=None)
    assert prior.quantile * prior.residual == pytest.approx(0.3)


def test_one_network_moves_the_offset_alone() -> None:
    fitted = calibrate([500.0], [5.0], [580.0])
    assert fitted.b == pytest.approx(1.0, abs=0.01)
    assert fitted.latency_us(np.array([500.0])) == pytest.approx([580.0], abs=0.5)
    assert fitted.loo_mape is None


def test_many_networks_give_offset_and_slope() -> None:
    fitted = calibrate(*networks(40))
    assert fitted.a_us == pytest.approx(60, abs=15)
    assert fitted.b == pytest.approx(1.05, abs=0.03)
    assert fitted.loo_mape == pytest.approx(0.008, abs=0.003)
    assert fitted.networks == 40


def test_errors_are_relative_so_that_small_networks_count_as_much() -> None:
    sums, sigmas, measured = networks(30, noise=0.0)
    fitted = calibrate([*sums, 10_000.0], [*sigmas, 10.0], [*measured, 1.3 * 10_000.0])
    assert fitted.latency_us(np.array(sums)) == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("count", [5, 10, 25, 40])
def test_the_interval_covers_networks_that_were_not_fitted(count: int) -> None:
    covered = []
    for seed in range(20):
        fitted = calibrate(*networks(count, seed))
        sums, sigmas, measured = (np.array(v) for v in networks(50, 1000 + seed))
        half = fitted.half_width_us(sums, sigmas)
        covered.append(np.abs(fitted.latency_us(sums) - measured) <= half)
    assert np.mean(covered) >= 0.93


def test_the_interval_narrows_with_evidence() -> None:
    def width(count: int) -> float:
        fitted = calibrate(*networks(count))
        return float(fitted.half_width_us(np.array(500.0), np.array(1.0)))

    assert width(40) < width(8) < width(0)


def test_wrong_values_name_the_field() -> None:
    with pytest.raises(InvalidInput, match="measured_us: must have as many values as sums"):
        calibrate([1.0, 2.0], [0.1, 0.1], [1.0])
    with pytest.raises(InvalidInput, match="finite and above 0"):
        calibrate([1.0], [0.1], [0.0])
    with pytest.raises(InvalidInput, match="b: must be above 0"):
        Calibration(b=0.0)
    with pytest.raises(InvalidInput, match="calibration"):
        Calibration.from_json({"slope": 1.0})


def test_json_round_trip() -> None:
    fitted = calibrate(*networks(10))
    assert Calibration.from_json(fitted.to_json()) == fitted


@pytest.mark.parametrize(("count", "level"), [(0, 0.0), (1, 0.5), (4, 0.8), (18, 18 / 19), (19, 0.95), (60, 0.95)])
def test_the_interval_claims_no_more_than_its_networks_can_vouch_for(count: int, level: float) -> None:
    sums = [100.0 + 10.0 * i for i in range(count)]
    assert calibrate(sums, [0.0] * count, [1.05 * s + 5.0 for s in sums]).level == pytest.approx(level)
