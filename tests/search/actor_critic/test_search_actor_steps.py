"""Steps: their order, and the rung that an action means."""

from __future__ import annotations

import numpy as np
import pytest

from search.actor_critic.steps import Step, steps_of
from search.problem import Objective, Problem
from search.space import Choice, Float, Int, Knob, Space
from search.stepping.lattice import Lattice

WIDTHS = Choice("late", (4, 8, 16), True, {"index": 3.0})
KNOBS: tuple[Knob, ...] = (
    WIDTHS,
    Int("early", 1, 5, {"index": 0.0}),
    Choice("precision", ("fp32", "int8"), ordered=False),
    Float("density", 0.1, 1.0),
    Choice("bits", (4, 8), True, {"index": 2.0}, "bits"),
)


def steps(*knobs: Knob) -> tuple[Step, ...]:
    space = Space(knobs)
    return steps_of(space, Lattice(Problem(space, (Objective("accuracy", "max"),), (), lambda batch: {})).rungs)


def test_options_and_bits_come_first_then_layers_in_the_order_of_the_network() -> None:
    assert [step.knob.name for step in steps(*KNOBS)] == ["precision", "bits", "early", "late", "density"]


def test_the_action_1_leaves_every_knob_whole() -> None:
    assert {step.knob.name: step.rungs[step.rung(1.0)] for step in steps(*KNOBS)} == Space(KNOBS).whole


@pytest.mark.parametrize(("action", "value"), [(0.0, 4), (0.16, 4), (0.34, 8), (0.66, 8), (0.67, 16), (1.0, 16)])
def test_an_action_means_the_nearest_width(action: float, value: int) -> None:
    (step,) = steps(WIDTHS)
    assert step.rungs[step.rung(action)] == value


def test_an_action_means_the_nearest_admissible_width() -> None:
    (step,) = steps(WIDTHS)
    assert step.rung(1.0, np.array([True, True, False])) == 1
    assert step.rung(0.0, np.array([False, False, True])) == 2


def test_a_value_between_rungs_has_an_action_of_its_own() -> None:
    (step,) = steps(Float("density", 0.0, 1.0))
    assert step.action(0.123) == pytest.approx(0.123)


def test_every_rung_is_what_its_action_means() -> None:
    for step in steps(*KNOBS):
        assert [step.rung(step.action(value)) for value in step.rungs] == list(range(len(step.rungs)))
