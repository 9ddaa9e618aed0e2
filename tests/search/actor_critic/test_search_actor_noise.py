"""Noise: its distribution, and how it decays."""

from __future__ import annotations

import numpy as np
import pytest

from search.actor_critic.noise import Schedule, truncated_normal


@pytest.mark.parametrize("mean", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("sigma", [0.01, 0.5, 100.0])
def test_it_is_the_normal_distribution_inside_the_interval(mean: float, sigma: float) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([truncated_normal(mean, sigma, rng) for _ in range(4000)])
    rejected = rng.normal(mean, sigma, 2_000_000)
    expected = rejected[(rejected >= 0.0) & (rejected <= 1.0)]
    assert ((drawn >= 0.0) & (drawn <= 1.0)).all()
    assert drawn.mean() == pytest.approx(expected.mean(), abs=0.02)
    assert drawn.std() == pytest.approx(expected.std(), abs=0.02)


def test_without_sigma_the_action_is_the_mean() -> None:
    assert truncated_normal(0.3, 0.0, np.random.default_rng(0)) == 0.3


def test_the_first_episode_has_no_noise() -> None:
    assert Schedule(0.5, 0.95, 100, 400).at(0) == 0.0


def test_it_is_constant_in_the_warm_up_and_then_decays_as_in_the_paper() -> None:
    schedule = Schedule(0.5, 0.95, 100, 400)
    assert schedule.at(1) == schedule.at(100) == 0.5
    assert schedule.at(101) == pytest.approx(0.5 * 0.95)
    assert schedule.at(250) == pytest.approx(0.5 * 0.95**150)


def test_a_short_budget_ends_with_little_noise_too() -> None:
    schedule = Schedule(0.5, 0.95, 5, 20)
    assert schedule.at(5) == 0.5
    assert schedule.at(20) == pytest.approx(0.05)


def test_little_noise_decays_as_set() -> None:
    assert Schedule(0.02, 0.9, 0, 4).at(3) == pytest.approx(0.02 * 0.9**3)
