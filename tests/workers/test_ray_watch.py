"""What the watch over a course on Ray stops once the wall seconds are used up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from workers.course import Course, Ended
from workers.ray_training import _Watch

EPOCHS = 6


@pytest.fixture
def watch(tmp_path: Path, by_accuracy: bool) -> _Watch:
    """Over a control and the finalists a and b; no wall second is left."""
    names = dict.fromkeys(("control", "a", "b"))
    nothing = (lambda name, epoch, wall_s: None), (lambda: False)
    return _Watch(Course(names, frozenset(["control"]), tmp_path, 3, 0.0, by_accuracy, False, *nothing), 3)  # type: ignore[arg-type]  # of lessons only names count


def _epoch(name: str, epoch: int, accuracy: float) -> dict[str, object]:
    return {
        "config": {"network": name},
        "epoch": epoch,
        "epochs": EPOCHS,
        "accuracy": accuracy,
        "elapsed_s": 1.0,
    }


def _trained(name: str) -> dict[str, object]:
    return {"config": {"network": name}, "ended": "trained", "reason": ""}


@pytest.mark.parametrize("by_accuracy", [True])
def test_of_two_the_more_accurate_goes_on(watch: _Watch) -> None:
    assert not watch("1", _epoch("a", 1, 0.5)), "nothing else is known of"
    assert not watch("2", _epoch("b", 1, 0.6))
    assert watch("1", _epoch("a", 2, 0.55))
    assert not any(watch("2", _epoch("b", epoch, 0.1)) for epoch in range(2, EPOCHS))
    assert watch.ended()["a"] == Ended("stopped", "the wall seconds were used up after epoch 2")


@pytest.mark.parametrize("by_accuracy", [False])
def test_where_accuracy_is_no_measure_the_one_named_first_goes_on(watch: _Watch) -> None:
    assert not watch("2", _epoch("b", 1, 0.9)), "nothing else is known of"
    assert not watch("1", _epoch("a", 1, 0.1))
    assert watch("2", _epoch("b", 2, 0.9))
    assert not watch("1", _epoch("a", 2, 0.1))


@pytest.mark.parametrize("by_accuracy", [True, False])
def test_where_one_is_trained_no_other_is_needed(watch: _Watch) -> None:
    assert not watch("1", _epoch("a", EPOCHS, 0.5)), "a training at its end is kept"
    assert watch("1", _trained("a"))
    assert watch("2", _epoch("b", 1, 0.9))
    assert watch.ended()["a"] == Ended("trained")


@pytest.mark.parametrize("by_accuracy", [True, False])
def test_nor_where_one_was_trained_in_an_earlier_run(watch: _Watch) -> None:
    later = _Watch(replace(watch._course, one_trained=True), 3)
    assert later("2", _epoch("b", 1, 0.9))
    assert later("1", _epoch("a", 1, 0.95))
    assert not later("0", _epoch("control", 1, 0.1))


@pytest.mark.parametrize("by_accuracy", [True, False])
def test_the_control_always_goes_on_and_is_not_the_one_to_judge(watch: _Watch) -> None:
    assert not any(watch("0", _epoch("control", epoch + 1, 0.9)) for epoch in range(EPOCHS))
    assert watch("0", _trained("control"))
    assert not any(watch("1", _epoch("a", epoch + 1, 0.5)) for epoch in range(EPOCHS))
