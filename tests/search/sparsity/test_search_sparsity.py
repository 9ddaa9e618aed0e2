"""One sparsity over any space: thresholds, densities, options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from search.errors import InvalidInput
from search.problem import Constraint, Objective, Problem
from search.space import Choice, Float, Int, Knob, Space, Subset, Value, Values
from search.sparsity.sparsities import Sparsities

Scores = Mapping[str, Sequence[float]]


def problem(*knobs: Knob, importance: Scores | None = None, sensitivity: Scores | None = None) -> Problem:
    def estimate(batch: Sequence[Values]) -> dict[str, NDArray[np.float64]]:
        return {"macs": np.ones(len(batch))}

    given = {"importance": importance or {}, "sensitivity": sensitivity or {}}
    statistics = {
        kind: {name: np.array(row, dtype=float) for name, row in rows.items()} for kind, rows in given.items()
    }
    return Problem(Space(knobs), (Objective("macs", "min"),), (), estimate, statistics=statistics)


def at(sparsities: Sparsities, s: float) -> dict[str, Value]:
    """The values that hold at s: those of the last point at or under it, on a grid of a thousandth."""
    return sparsities.values[int(np.searchsorted(sparsities.s, s + 1e-3, side="right")) - 1]


WIDE = Choice("wide", (1, 2, 3, 4, 5, 6, 7, 8), ordered=True)
SLIM = Int("slim", 1, 4)


def test_one_threshold_takes_the_lowest_scores_of_all_knobs() -> None:
    scores = {"wide": [1, 1, 1, 1, 9, 9, 9, 9], "slim": [8, 9, 10, 11]}
    found = Sparsities.of(problem(WIDE, SLIM, importance=scores))
    assert at(found, 0.0) == {"wide": 8, "slim": 4}
    assert at(found, 4 / 12) == {"wide": 4, "slim": 4}  # the four weak ones, all of one knob
    assert at(found, 0.999) == {"wide": 1, "slim": 1}


def test_scores_of_another_scale_are_no_reason_to_cut() -> None:
    scores = {"wide": [1, 2, 3, 4, 5, 6, 7, 8], "slim": [1e-6, 2e-6, 3e-6, 4e-6]}
    assert at(Sparsities.of(problem(WIDE, SLIM, importance=scores)), 0.5) == {"wide": 4, "slim": 2}


def test_equal_scores_are_cut_evenly() -> None:
    scores = {"wide": [3.3] * 8, "slim": [0.7] * 4}
    assert at(Sparsities.of(problem(WIDE, SLIM, importance=scores)), 0.5) == {"wide": 4, "slim": 2}


def test_what_a_knob_loses_alone_says_what_its_units_are_worth() -> None:
    scores = {"wide": [1.0] * 8, "slim": [1.0] * 4}
    losses = {"wide": [0.9] * 7 + [0.91], "slim": [0.3, 0.5, 0.7, 0.9]}
    found = Sparsities.of(problem(WIDE, SLIM, importance=scores, sensitivity=losses))
    assert at(found, 7 / 12) == {"wide": 1, "slim": 4}


def test_counts_go_down_to_an_allowed_width() -> None:
    knob = Choice("wide", (2, 5, 8), ordered=True)
    found = Sparsities.of(problem(knob, importance={"wide": range(8)}))
    assert [values["wide"] for values in found.values] == [8, 5, 2]
    np.testing.assert_allclose(found.s, [0.0, 1 / 8, 4 / 8], atol=1e-3)


def test_a_density_is_what_is_left_and_options_are_the_last() -> None:
    knobs = (Float("weight_prune", 0.01, 1.0), Choice("int8_ptq", ("fp32", "int8"), ordered=False))
    found = Sparsities.of(problem(*knobs))
    assert found.values[0] == {"weight_prune": 1.0, "int8_ptq": "int8"}
    for s, values in zip(found.s, found.values, strict=True):
        assert values["weight_prune"] == pytest.approx(1.0 - s)
    assert found.s[-1] == pytest.approx(0.99)
    assert found.s[500] == pytest.approx(0.9)  # half way: evenly in the logarithm of what is left


@pytest.mark.parametrize(("bound", "option"), [(2.5, "int8"), (1.5, "fp32"), (0.5, "int8")])
def test_options_that_meet_no_limit_are_left_alone(bound: float, option: str) -> None:
    """Where nothing meets it, the scheme is what is said to come nearest."""

    def estimate(batch: Sequence[Values]) -> dict[str, NDArray[np.float64]]:
        return {"latency_ms": np.array([2.0 if values["int8_ptq"] == "int8" else 1.0 for values in batch])}

    knobs = (WIDE, Choice("int8_ptq", ("fp32", "int8"), ordered=False))
    limit = Constraint("latency_ms", bound, "max")
    found = Sparsities.of(Problem(Space(knobs), (Objective("accuracy", "max"),), (limit,), estimate))
    assert {values["int8_ptq"] for values in found.values} == {option}


def test_a_density_without_a_least_stops_short_of_nothing() -> None:
    found = Sparsities.of(problem(Float("weight_prune", 0.0, 1.0)))
    assert found.s[-1] == pytest.approx(0.995)


def test_without_scores_every_knob_keeps_the_same_share() -> None:
    assert at(Sparsities.of(problem(WIDE, SLIM)), 0.499) == {"wide": 4, "slim": 2}


@pytest.mark.parametrize("scores", [None, {"wide": [0.0] * 8, "slim": [0, 0, 0, 1e300]}])
def test_points_are_distinct_of_the_space_and_known_again(scores: Scores | None) -> None:
    given = problem(WIDE, SLIM, Choice("fp16", ("fp32", "fp16"), ordered=False), importance=scores)
    found = Sparsities.of(given)
    assert len(found) > 3
    assert np.all(np.diff(found.s) > 0)
    assert np.all(np.diff(found.x) > 0)
    assert (found.x[0], found.x[-1]) == (0.0, 1.0)
    for i, values in enumerate(found.values):
        given.space.check(values)
        assert found.index(values) == i
    assert found.index({"wide": 8, "slim": 4, "fp16": "fp32"}) is None


def test_a_space_without_anything_to_thin_out_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs a width or a density"):
        Sparsities.of(problem(Choice("fp16", ("fp32", "fp16"), ordered=False)))
    with pytest.raises(InvalidInput, match="not subsets"):
        Sparsities.of(problem(Subset("units", 4)))
