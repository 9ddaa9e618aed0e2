"""What the watch over a course on Ray stops once the wall seconds are used up, and what it leaves of those that ASHA
would stop.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from search.metrics import METRICS
from workers.on_ray.training import SparingAsha, Watch
from workers.training.parallel_training import Course, Ended

EPOCHS = 6


@pytest.fixture
def watch(tmp_path: Path, by_score: bool) -> Watch:
    """Over a control and the finalists a and b; no wall second is left."""
    names = dict.fromkeys(("control", "a", "b"))
    nothing = (lambda name, epoch, wall_s: None), (lambda: False)
    return Watch(
        Course(names, frozenset(["control"]), tmp_path, 3, 0.0, by_score, False, *nothing, METRICS["accuracy"]), 3
    )  # type: ignore[arg-type]  # of lessons only names count


def _epoch(name: str, epoch: int, accuracy: float) -> dict[str, object]:
    return {
        "config": {"network": name},
        "epoch": epoch,
        "epochs": EPOCHS,
        "score": accuracy,
        "elapsed_s": 1.0,
        "loss": 0.5,
    }


def _trained(name: str) -> dict[str, object]:
    return {"config": {"network": name}, "ended": "trained", "reason": ""}


@pytest.mark.parametrize("by_score", [True])
def test_of_two_the_more_accurate_goes_on(watch: Watch) -> None:
    assert not watch("1", _epoch("a", 1, 0.5)), "nothing else is known of"
    assert not watch("2", _epoch("b", 1, 0.6))
    assert watch("1", _epoch("a", 2, 0.55))
    assert not any(watch("2", _epoch("b", epoch, 0.1)) for epoch in range(2, EPOCHS))
    assert watch.ended()["a"] == Ended("stopped", "the wall seconds were used up after epoch 2", out_of_time=True)


@pytest.mark.parametrize("by_score", [False])
def test_where_accuracy_is_no_measure_the_one_named_first_goes_on(watch: Watch) -> None:
    assert not watch("2", _epoch("b", 1, 0.9)), "nothing else is known of"
    assert not watch("1", _epoch("a", 1, 0.1))
    assert watch("2", _epoch("b", 2, 0.9))
    assert not watch("1", _epoch("a", 2, 0.1))


@pytest.mark.parametrize("by_score", [True, False])
def test_where_one_is_trained_no_other_is_needed(watch: Watch) -> None:
    assert not watch("1", _epoch("a", EPOCHS, 0.5)), "a training at its end is kept"
    assert watch("1", _trained("a"))
    assert watch("2", _epoch("b", 1, 0.9))
    assert watch.ended()["a"] == Ended("trained")


@pytest.mark.parametrize("by_score", [True, False])
def test_nor_where_one_was_trained_in_an_earlier_run(watch: Watch) -> None:
    later = Watch(replace(watch._course, one_trained=True), 3)
    assert later("2", _epoch("b", 1, 0.9))
    assert later("1", _epoch("a", 1, 0.95))
    assert not later("0", _epoch("control", 1, 0.1))


@pytest.mark.parametrize("by_score", [True, False])
def test_the_control_always_goes_on_and_is_not_the_one_to_judge(watch: Watch) -> None:
    assert not any(watch("0", _epoch("control", epoch + 1, 0.9)) for epoch in range(EPOCHS))
    assert watch("0", _trained("control"))
    assert not any(watch("1", _epoch("a", epoch + 1, 0.5)) for epoch in range(EPOCHS))


@pytest.mark.parametrize("by_score", [True])
def test_a_sample_that_goes_on_is_one_to_judge(watch: Watch) -> None:
    course = replace(watch._course, spared=frozenset(["control", "a"]))
    later = Watch(course, 3)
    assert not later("2", _epoch("b", 1, 0.9))
    assert not later("1", _epoch("a", EPOCHS, 0.5))
    assert later("1", _trained("a"))
    assert later("2", _epoch("b", 2, 0.9))


class Under:
    """A watch with ASHA behind it, as Tune asks them: the watch first."""

    def __init__(self, course: Course, left_s: float) -> None:
        self.watch = Watch(replace(course, left_s=left_s), 1)
        self._asha = SparingAsha(self.watch, course.spared, EPOCHS)
        self._trials = {name: SimpleNamespace(config={"network": name}, trial_id=name) for name in course.lessons}
        for trial in self._trials.values():
            self._asha.on_trial_add(None, trial)

    def stops(self, name: str, epoch: int, accuracy: float) -> bool:
        told = _epoch(name, epoch, accuracy)
        return self.watch(name, told) or (
            self._asha.on_trial_result(None, self._trials[name], told) == TrialScheduler.STOP
        )


@pytest.mark.parametrize("by_score", [True])
def test_one_that_asha_stopped_is_no_reason_to_stop_another(watch: Watch) -> None:
    under = Under(watch._course, left_s=3.5)
    assert not under.stops("b", 1, 0.90)
    assert not under.stops("b", 2, 0.91)
    assert under.stops("a", 2, 0.90)
    assert under.watch.ended() == {"a": Ended("stopped", "accuracy 90.00% after epoch 2, behind the other networks")}
    assert not any(under.stops("b", epoch, 0.80) for epoch in range(3, EPOCHS + 1)), "the wall seconds are used up"


@pytest.mark.parametrize("by_score", [True])
def test_asha_does_not_stop_the_last_one(watch: Watch) -> None:
    under = Under(watch._course, left_s=3.5)
    assert not under.stops("b", 1, 0.90)
    assert not under.stops("b", 2, 0.92)
    assert not under.stops("a", 1, 0.93)
    assert under.stops("b", 3, 0.91), "the wall seconds are used up, and another one is ahead"
    assert not any(under.stops("a", epoch, 0.80) for epoch in range(2, EPOCHS + 1))


@pytest.mark.parametrize("by_score", [True])
def test_asha_stops_the_last_one_where_another_is_trained(watch: Watch) -> None:
    under = Under(watch._course, left_s=1e9)
    assert not any(under.stops("b", epoch, 0.9) for epoch in range(1, EPOCHS + 1))
    under.watch("b", _trained("b"))
    assert under.stops("a", 2, 0.8)
