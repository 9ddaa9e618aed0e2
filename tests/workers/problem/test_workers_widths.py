"""Which widths of a group are worth searching, by what they cost."""

from __future__ import annotations

import numpy as np
import pytest

from workers.errors import InvalidInput
from workers.problem.widths import allowed_widths


def test_a_width_is_allowed_when_no_larger_one_costs_less() -> None:
    costs = np.array([1.0, 5.0, 3.0, 3.0, 9.0, 7.0, 8.0])
    assert allowed_widths(costs).tolist() == [True, False, True, True, False, True, True]


def test_the_largest_width_is_always_allowed() -> None:
    assert allowed_widths(np.array([9.0, 9.0])).tolist() == [True, True]
    assert allowed_widths(np.array([5.0])).tolist() == [True]


def test_a_tolerance_leaves_one_width_of_each_step() -> None:
    staircase = np.array([1.0, 1.001, 0.999, 2.0, 2.001, 2.002])
    assert allowed_widths(staircase, tolerance=0.01).tolist() == [False, False, True, False, False, True]


def test_a_tolerance_thins_a_slope_by_what_each_width_saves() -> None:
    slope = np.arange(90.0, 101.0)
    widths = 90 + np.flatnonzero(allowed_widths(slope, tolerance=0.04))
    assert widths.tolist() == [92, 96, 100]


def test_it_works_on_batches_of_curves() -> None:
    costs = np.random.default_rng(0).random((3, 4, 20))
    allowed = allowed_widths(costs)
    assert allowed.shape == costs.shape
    for index in np.ndindex(3, 4):
        curve = costs[index]
        expected = [curve[i] <= curve[i + 1 :].min(initial=np.inf) for i in range(20)]
        assert allowed[index].tolist() == expected


def test_nan_is_refused() -> None:
    with pytest.raises(InvalidInput, match="every width needs a cost"):
        allowed_widths(np.array([1.0, np.nan]))
