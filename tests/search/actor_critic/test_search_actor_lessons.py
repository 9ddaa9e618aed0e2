"""Lessons: a restart learns in the same order as the strategy that it replaces."""

from __future__ import annotations

from collections.abc import Sequence

from search.actor_critic.lessons import Lessons
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.knowledge import Knowledge
from search.problem import Objective, Problem
from search.space import Int, Space

PROBLEM = Problem(Space((Int("x", 0, 99),)), (Objective("accuracy", "max"),), (), lambda batch: {})


class Learning:
    """A strategy that only learns: it asks for one point after another."""

    def __init__(self) -> None:
        self._known = Knowledge(PROBLEM, "mine", 0)
        self._lessons = Lessons(self._known)
        self.order: list[str] = []

    def ask(self) -> Candidate:
        self.order += [evaluation.candidate.id for evaluation in self._lessons.due()]
        return self._known.candidate({"x": self._known.asked}, self._lessons.parents())

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate] = ()) -> None:
        self._known.note(evaluations, pending)
        self._lessons.note(evaluations, pending)


def done(candidate: Candidate) -> Evaluation:
    return Evaluation(candidate, Status.COMPLETED, {"accuracy": 0.5})


def other(id_: str, x: int) -> Evaluation:
    return done(Candidate(id_, {"x": x}, origin="other"))


def test_a_restart_learns_in_the_same_order() -> None:
    first = Learning()
    told = [other("z", 50)]
    first.tell(told)
    asked = [first.ask(), first.ask()]
    for late in (other("b", 60), done(asked[1]), other("a", 61), done(asked[0])):
        first.tell([late])
        told.append(late)
        asked.append(first.ask())
    second = Learning()
    second.tell(told[::-1], asked[2:])
    assert second.ask() == first.ask()
    assert second.order == first.order == ["z", "b", asked[1].id, "a", asked[0].id]


def test_what_is_learned_for_an_ask_without_a_candidate_is_recorded_by_the_next() -> None:
    first = Learning()
    lessons = first._lessons
    first.tell([other("b", 1)])
    assert [evaluation.candidate.id for evaluation in lessons.due()] == ["b"]
    first.tell([other("a", 2)])
    assert first.ask().parents == ("b", "a")


def test_equal_values_are_learned_once_and_told_again_not_at_all() -> None:
    learning = Learning()
    learning.tell([other("a", 1), other("b", 1)])
    assert learning.ask().parents == ("a",)
    learning.tell([other("a", 1), other("c", 1)])
    assert learning.ask().parents == ()


def test_what_cannot_be_compared_is_not_learned() -> None:
    learning = Learning()
    learning.tell([done(Candidate("a", {"y": 1})), done(Candidate("b", {"x": 1}, fidelity="F4"))])
    assert learning.ask().parents == ()
