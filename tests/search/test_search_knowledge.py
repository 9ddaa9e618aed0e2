from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.knowledge import Knowledge
from search.problem import Objective, Problem
from search.space import Int, Space

PROBLEM = Problem(
    Space((Int("x", 0, 9), Int("y", 0, 9))), (Objective("loss", "min"),), (), lambda b: {"n": np.zeros(len(b))}
)


def _known() -> Knowledge:
    return Knowledge(PROBLEM, "mine", 7)


def _evaluation(x: int, loss: float, name: str = "other-1", status: Status = Status.COMPLETED) -> Evaluation:
    return Evaluation(Candidate(name, {"x": x, "y": 0}), status, {"loss": loss}, reason="as told")


def test_ids_go_on_after_the_highest_seen() -> None:
    known = _known()
    assert known.candidate({"x": 1, "y": 1}).id == "mine-s7-0000"
    known.note([_evaluation(2, 1.0, "mine-s7-0004")], [Candidate("mine-s7-0008", {"x": 3, "y": 3})])
    assert known.candidate({"x": 4, "y": 4}).id == "mine-s7-0009"
    known.note([_evaluation(5, 1.0, "mine-s70-0044")], [])
    assert known.candidate({"x": 6, "y": 6}).id == "mine-s7-0010"


def test_what_is_asked_is_pending_until_a_tell_says_otherwise() -> None:
    known = _known()
    values = known.candidate({"x": 1, "y": 1}).values
    assert known.pending(dict(reversed(list(values.items()))))
    assert not known.fresh(values)
    known.note([], [])
    assert known.fresh(values)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_of_several_results_the_best_counts_in_any_order(order: tuple[int, ...]) -> None:
    told = [
        _evaluation(1, 0.3),
        _evaluation(1, 0.2, name="second"),
        _evaluation(1, 0.1, status=Status.FAILED),
    ]
    known = _known()
    for i in order:
        known.note([told[i]], [])
    assert known.utility({"x": 1, "y": 0}) == -0.2
    assert known.parents({"x": 1, "y": 0}) == ("second",)
    assert [utility for _, utility in known.completed()] == [-0.2]


def test_a_failure_is_resolved_and_has_no_utility() -> None:
    known = _known()
    known.note([_evaluation(1, 0.1, status=Status.FAILED)], [])
    assert known.resolved({"x": 1, "y": 0})
    assert known.utility({"x": 1, "y": 0}) is None
    assert known.parents({"x": 2, "y": 0}) == ()


def test_what_cannot_be_compared_is_left_out() -> None:
    known = _known()
    told = _evaluation(1, 0.1)
    for change in ({"fidelity": "F4"}, {"masks": {"b": (1,)}}, {"weights_from": "net"}, {"values": {"z": 1}}):
        known.note([replace(told, candidate=replace(told.candidate, **change))], [])
    assert known.fresh({"x": 1, "y": 0})
    known.note([replace(told, metrics={"other": 1.0})], [])
    assert known.resolved({"x": 1, "y": 0})
    assert known.completed() == []


def test_a_strategy_with_masks_knows_only_its_own_candidates() -> None:
    known = Knowledge(PROBLEM, "mine", 7, masked=True)
    told = _evaluation(1, 0.1)
    masked = replace(told.candidate, masks={"b": (1,)})
    for candidate in (replace(told.candidate, origin="theirs"), replace(masked, origin="theirs")):
        known.note([replace(told, candidate=candidate)], [candidate])
    assert known.fresh({"x": 1, "y": 0})
    known.note([], [replace(masked, origin="mine")])
    assert known.pending({"x": 1, "y": 0})
    known.note([replace(told, candidate=replace(masked, origin="mine"))], [])
    assert known.utility({"x": 1, "y": 0}) == -0.1


def test_whole_trainings_are_known_by_recipe_and_may_start_from_others_weights() -> None:
    known = Knowledge(PROBLEM, "mine", 7, fidelity="F4", recipe="lc")
    made = known.candidate({"x": 1, "y": 0}, weights_from="abc")
    assert (made.fidelity, made.recipe, made.weights_from) == ("F4", "lc", "abc")
    assert known.running() == [{"x": 1, "y": 0}]
    proxy, direct = _evaluation(2, 1.0), _evaluation(3, 1.0)
    direct = replace(direct, candidate=replace(made, id="d", recipe="direct", values={"x": 3, "y": 0}))
    solved = Evaluation(made, Status.COMPLETED, {"loss": 2.0}, network="def")
    known.note([proxy, direct, solved], [])
    assert known.evaluations() == [solved]
    assert known.running() == []
