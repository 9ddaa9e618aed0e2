"""A job that is far out of reach names the limits and the lowest values that were found."""

from __future__ import annotations

import numpy as np

from search.problem import Constraint, Objective, Problem
from search.space import Choice, Space
from workers.phases.missed import lowest


def test_the_lowest_value_of_an_unreachable_limit_is_named() -> None:
    space = Space((Choice("width", (1, 2, 4), ordered=True),))
    bounds = (Constraint("macs", 5.0, "max"), Constraint("size_bytes", 900.0, "max"))
    problem = Problem(
        space,
        (Objective("accuracy", "max"),),
        bounds,
        lambda batch: {
            "macs": np.array([10.0 * each["width"] for each in batch]),
            "size_bytes": np.array([100.0 * each["width"] for each in batch]),
        },
    )
    told = list(lowest(problem, [{"width": 4}, {"width": 2}]))
    assert told == ["the limit on macs is 5, and the lowest found is 20"]
