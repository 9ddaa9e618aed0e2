"""Intervals of shares, against published figures and a library."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from compress.scoring.intervals import Z, tango, wilson


@pytest.mark.parametrize(("right", "count"), [(0, 20), (1, 20), (490, 500), (500, 500)])
def test_the_interval_is_wilsons(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_tangos_interval_is_the_published_one() -> None:
    # Airway hyper-responsiveness before and after a transplantation, 1 and 7 of 21 discordant: Fagerland, Lydersen
    # and Laake, Statistics in Medicine 33 (2014), 2850-2875.
    assert tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert tango(7, 1, 21) == pytest.approx((0.026, 0.517), abs=5e-4)


@pytest.mark.parametrize("count", [1, 100, 10_000])
def test_no_discordant_image_leaves_a_doubt(count: int) -> None:
    half = Z**2 / (count + Z**2)
    assert tango(0, 0, count) == pytest.approx((-half, half), abs=1e-9)


@pytest.mark.parametrize("count", [1, 5, 400])
def test_all_discordant_stays_within_1(count: int) -> None:
    low, high = tango(count, 0, count)
    assert -1.0 < low < high == pytest.approx(1.0)
    assert tango(0, count, count) == pytest.approx((-high, -low))


def test_the_truth_is_covered_as_often_as_promised_where_few_images_differ() -> None:
    rng = np.random.default_rng(0)
    first, second, count = 0.01, 0.005, 800
    drawn = rng.multinomial(count, [first, second, 1.0 - first - second], 1500)
    found = [tango(int(a), int(b), count) for a, b, _ in drawn]
    assert np.mean([low <= first - second <= high for low, high in found]) > 0.935
