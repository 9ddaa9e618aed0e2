"""Students against enumeration, and the saliencies by which they are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from search.errors import Infeasible
from search.problem import Constraint, Objective, Problem
from search.space import Choice, Float, Space, Values
from search.stepping.curves import Curve
from search.stepping.lattice import Lattice
from search.students.saliency import saliencies
from search.students.students import Students
from search.synthetic.network import PRECISION
from search.synthetic.replay import Replay, make_replay
from search.testing import SEVERAL


def _loss(curves: Sequence[Curve], points: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.sum([curve[points[:, i]] for i, curve in enumerate(curves)], axis=0))


def _least(lattice: Lattice, curves: Sequence[Curve]) -> float:
    """Return the least loss of all points within the limits, by enumeration."""
    points = np.indices(lattice.counts).reshape(len(lattice.counts), -1).T
    return float(np.min(_loss(curves, points)[lattice.violations(points) == 0.0], initial=np.inf))


def _students(replay: Replay) -> tuple[Students, Lattice]:
    lattice = Lattice(replay.problem)
    return Students(replay.problem, lattice), lattice


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("device", ["small-cpu", "wide-gpu"])
def test_the_first_student_is_the_best_of_all(seed: int, device: str) -> None:
    replay = make_replay(seed, knobs=5, levels=5, ratios={f"latency_ms@{device}": 0.45})
    students, lattice = _students(replay)
    for curves in saliencies(replay.problem, lattice).values():
        found = np.stack(students.within(curves))
        losses = _loss(curves, found)
        assert losses[0] == pytest.approx(_least(lattice, curves))
        assert (np.diff(losses) >= 0).all()
        assert (lattice.violations(found) == 0).all()
        assert len({tuple(point) for point in found.tolist()}) == len(found) > 1
    assert students.gap == 0.0
    assert not students.notes


@pytest.mark.parametrize("seed", range(6))
def test_several_limits_are_all_met_near_the_best(seed: int) -> None:
    replay = make_replay(seed, knobs=5, levels=5, ratios=SEVERAL)
    students, lattice = _students(replay)
    for curves in saliencies(replay.problem, lattice).values():
        found = np.stack(students.within(curves))
        assert (lattice.violations(found) == 0).all()
        assert _loss(curves, found)[0] <= 1.15 * _least(lattice, curves)


def test_one_binding_limit_of_several_is_exact() -> None:
    ratios = {"latency_ms@small-cpu": 0.4, "latency_ms@wide-gpu": 1.0, "size_bytes": 1.0}
    replay = make_replay(2, knobs=5, levels=5, ratios=ratios)
    students, lattice = _students(replay)
    for curves in saliencies(replay.problem, lattice).values():
        assert _loss(curves, students.within(curves)[0][None])[0] == pytest.approx(_least(lattice, curves))
    assert not students.notes


def test_an_impossible_limit_is_told_with_the_fastest_network() -> None:
    replay = make_replay(0, knobs=4, levels=4, ratios={"latency_ms@small-cpu": 0.001})
    students, lattice = _students(replay)
    with pytest.raises(Infeasible) as caught:
        students.within(next(iter(saliencies(replay.problem, lattice).values())))
    points = np.indices(lattice.counts).reshape(len(lattice.counts), -1).T
    assert caught.value.violation == pytest.approx(lattice.violations(points).min())


def test_without_a_limit_the_whole_network_is_first_and_smaller_ones_follow() -> None:
    replay = make_replay(1, knobs=4, levels=5, ratios={})
    students, lattice = _students(replay)
    found = students.within(saliencies(replay.problem, lattice)["fisher"])
    assert found[0].tolist() == lattice.top.tolist()
    latency_ms = replay.problem.estimate([lattice.values(point) for point in found])["latency_ms@small-cpu"]
    assert latency_ms[-1] < 0.5 * latency_ms[0]


def test_banned_options_are_in_no_student() -> None:
    replay = make_replay(1, knobs=5, levels=5, ratios={"latency_ms@small-cpu": 0.6})
    students, lattice = _students(replay)
    curves = saliencies(replay.problem, lattice)["fisher"]
    option = [rungs.name for rungs in lattice.rungs].index(PRECISION)
    assert students.within(curves)[0][option] == 1
    assert all(point[option] == 0 for point in students.within(curves, [(option, 1)]))


def _bytes(batch: Sequence[Values]) -> Mapping[str, Any]:
    return {"stored_bytes": np.array([int(v["a"]) * float(v["density"]) for v in batch])}  # type: ignore[arg-type]  # numbers


def test_a_limit_without_tables_is_met_by_steps() -> None:
    space = Space((Choice("a", (2, 4, 8), True), Float("density", 0.0, 1.0)))
    limits = (Constraint("stored_bytes", 4.0, "max"),)
    problem = Problem(space, (Objective("accuracy", "max"),), limits, _bytes, original={"accuracy": 0.9})
    lattice = Lattice(problem)
    curves = saliencies(problem, lattice)["shape"]
    students = Students(problem, lattice)
    best = students.within(curves)[0]
    (note,) = students.notes
    assert note.endswith("because a limit is not a sum of tables.")
    assert lattice.violation(best) == 0.0
    assert _loss(curves, best[None])[0] <= 1.1 * _least(lattice, curves)


def test_tables_too_wide_to_be_joined_are_met_by_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.elimination.front._ALL_POINTS", 1)
    replay = make_replay(1, knobs=5, levels=5)
    students, lattice = _students(replay)
    curves = saliencies(replay.problem, lattice)["fisher"]
    best = students.within(curves)[0]
    students.within(curves)
    (note,) = students.notes
    assert note.endswith("because the tables of a limit are too wide to be joined.")
    assert lattice.violation(best) == 0.0
    assert _loss(curves, best[None])[0] <= 1.5 * _least(lattice, curves)


WIDTHS = (2, 4, 6, 8)


def _problem(statistics: Mapping[str, Any]) -> Problem:
    space = Space((Choice("a", WIDTHS, True), Choice("b", WIDTHS, True), Choice("p", ("fp32", "int8"), False)))
    return Problem(
        space, (Objective("accuracy", "max"),), (), lambda _: {}, statistics=statistics, original={"accuracy": 0.9}
    )


def _saliencies(statistics: Mapping[str, Any]) -> dict[Any, list[Curve]]:
    problem = _problem(statistics)
    return saliencies(problem, Lattice(problem))


def test_fisher_sums_what_the_removed_units_score() -> None:
    found = _saliencies({"fisher": {"a": np.array([8.0, 1, 1, 4, 0, 0, 0, 2]), "b": np.full(8, 0.5)}})
    a, b, option = found["fisher"]
    assert a / a[0] == pytest.approx(np.array([4.0, 1.0, 0.0, 0.0]) / 4.0)  # the kept 2, 4 and 6 best of 16 in all
    assert a[0] / b[0] == pytest.approx(4.0 / 3.0)
    assert (a[0] + b[0]) / 2 == pytest.approx(0.09), "a tenth of the original's score, on average"
    share_a, share_b, _ = found["fisher_share"]
    assert share_a[0] / share_b[0] == pytest.approx((4.0 / 16.0) / 0.75)
    assert option.tolist() == [0.0, pytest.approx(0.0045)]


def test_options_and_the_scale_come_from_the_sensitivity() -> None:
    sensitivity = {
        "a": np.array([0.5, 0.7, 0.8, 0.9]),
        "b": np.array([0.7, 0.8, 0.9, 0.9]),
        "p": np.array([0.9, 0.88]),
    }
    found = _saliencies({"fisher": {"a": np.ones(8), "b": np.ones(8)}, "sensitivity": sensitivity})
    a, b, option = found["fisher"]
    assert option == pytest.approx([0.0, 0.02])
    assert a == pytest.approx(b)
    assert a[0] == pytest.approx(np.mean([curve[0] for curve in found["sensitivity"][:2]]))


@pytest.mark.parametrize(
    "missing",
    [{"ls_error": {"b": np.array([0.6, 0.3, 0.1, 0.0])}}, {"importance": {"b": np.arange(8.0)}}, {}],
)
def test_a_knob_without_fisher_scores_falls_back(missing: Mapping[str, Any]) -> None:
    a, b, _ = _saliencies({"fisher": {"a": np.ones(8)}, **missing})["fisher"]
    assert b[0] == pytest.approx(a[0]), "its deepest cut is an average one"
    assert (np.diff(b) < 0).all()
    assert b[-1] == 0.0


def test_without_statistics_the_usual_shape_is_left() -> None:
    found = _saliencies({"fisher": {"a": np.full(8, np.nan)}})
    assert list(found) == ["shape"]
    assert found["shape"][0] == pytest.approx(found["shape"][1])
