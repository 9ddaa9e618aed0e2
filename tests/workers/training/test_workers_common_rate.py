"""The learning rate: lowered for all alike if the control's training blows up at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from compress.errors import TrainingDiverged
from compress.training.direct import fine_tune as honest
from compress.training.fit import Step
from hw_profiles.host_lock import HostLock
from workers.errors import JobFailed
from workers.job import run
from workers.plan import Budget, JobPlan, Training
from workers.progress import Message, Phased
from workers.running.common_rate import LOWER, TIMES, Look, blew_up, lowered, rate_is_decided, times_lowered
from workers.running.context import Context
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


class Steep:
    """A trainer whose loss rises to 100 if the rate is more than `bears`. `rates`: those that were trained at."""

    def __init__(self, bears: float) -> None:
        self.bears = bears
        self.rates: list[float] = []

    def train(self, *arguments: Any) -> Iterator[Step]:
        recipe = arguments[3]
        self.rates.append(recipe.lr)
        for step in honest(*arguments):
            yield replace(step, loss=100.0) if recipe.lr > self.bears and step.step else step


def test_all_train_at_the_rate_that_the_control_bears(job: Job, lock: HostLock) -> None:
    plan, ports = job(budget=Budget(evaluations=2, wall_s=600, finalists=1), training=Training(2, "none"))
    steep = Steep(bears=0.005)
    assert run(plan, ports, lock, train=steep.train).verdict is not None
    assert steep.rates == pytest.approx([0.01, 0.01 * LOWER, 0.01 * LOWER])
    (line,) = [text for text in ports.lines if "blows up" in text]
    assert line.startswith("At a learning rate of 0.01 the control's training blows up: its loss rises from ")


def test_what_was_decided_holds_for_a_run_that_died(job: Job, lock: HostLock) -> None:
    plan, ports = job(budget=Budget(evaluations=2, wall_s=600, finalists=1), training=Training(2, "none"))
    steep = Steep(bears=0.005)

    class Killed(BaseException):
        pass

    def observe(message: Message) -> None:
        if len(steep.rates) == 2 and isinstance(message, Phased) and message.phase == "train":
            raise Killed

    ports.observe = observe
    with pytest.raises(Killed):
        run(plan, ports, lock, train=steep.train)
    ports.observe = lambda message: None
    run(plan, ports, lock, train=steep.train)
    assert steep.rates == pytest.approx([0.01, *[0.01 * LOWER] * 3])


def test_a_rate_is_lowered_so_often_and_no_more(job: Job, lock: HostLock) -> None:
    plan, ports = job(budget=Budget(evaluations=2, wall_s=600, finalists=1), training=Training(1, "none"))
    steep = Steep(bears=0.0)
    assert run(plan, ports, lock, train=steep.train).verdict is not None
    assert len(steep.rates) == TIMES + 2, "the control once more each time, and the finalist"
    assert min(steep.rates) == pytest.approx(0.01 * LOWER**TIMES)


class Endless(Steep):
    """A trainer whose loss is infinite at its second step if the rate is more than `bears`."""

    def train(self, *arguments: Any) -> Iterator[Step]:
        recipe = arguments[3]
        self.rates.append(recipe.lr)
        for step in honest(*arguments):
            if recipe.lr > self.bears and step.step:
                raise TrainingDiverged(step.epoch, step.step, float("inf"))
            yield step


def test_a_loss_without_end_in_the_first_epoch_lowers_the_rate(job: Job, lock: HostLock) -> None:
    plan, ports = job(budget=Budget(evaluations=2, wall_s=600, finalists=1), training=Training(1, "none"))
    endless = Endless(bears=0.005)
    assert run(plan, ports, lock, train=endless.train).verdict is not None
    assert endless.rates == pytest.approx([0.01, 0.01 * LOWER, 0.01 * LOWER])
    (line,) = [text for text in ports.lines if "diverges" in text]
    assert line.startswith("At a learning rate of 0.01 the control's training diverges: its loss is inf at step 1. ")


def test_a_loss_without_end_at_every_rate_ends_the_job(job: Job, lock: HostLock) -> None:
    plan, ports = job(budget=Budget(evaluations=2, wall_s=600, finalists=1), training=Training(1, "none"))
    endless = Endless(bears=0.0)
    with pytest.raises(JobFailed) as caught:
        run(plan, ports, lock, train=endless.train)
    assert caught.value.code == "control_diverged"
    assert len(endless.rates) == TIMES + 1


@pytest.fixture
def context(job: Job, lock: HostLock) -> Context:
    plan, ports = job()
    return Context(plan, ports, ports.recorded(), lock)


def test_a_rate_is_not_lowered_once_time_is_out(context: Context) -> None:
    assert lowered(context, 0.01, "fails")
    context.spent_s = context.plan.budget.wall_s
    assert not lowered(context, 0.003, "fails")
    assert times_lowered(context) == 1


def test_a_rate_is_decided_for_each_form_if_it_stays_as_well(context: Context) -> None:
    assert not rate_is_decided(context)
    assert lowered(context, 0.01, "fails")
    assert not rate_is_decided(context)
    assert not lowered(context, 0.003, None)
    assert rate_is_decided(context)
    assert not rate_is_decided(context, "plain-")
    assert not lowered(context, 0.003, "fails"), "what is decided stays"


def looks(*losses: float, blank: float = 2.0) -> list[Look]:
    return [Look(loss, blank) for loss in losses]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((0.5, 9.0, 7.0), True),
        ((0.5, 2.5, 0.6), False),
        ((0.5, 2.0, 1.9), True),
        ((3.0, 9.0, 7.0), False),
        ((0.1, 0.4, 0.3), False),
    ],
)
def test_a_training_blows_up_that_knew_something_and_then_less_than_half_of_it(
    losses: tuple[float, ...], expected: bool
) -> None:
    assert blew_up(looks(*losses)) is expected


def test_a_loss_that_is_not_compared_blows_nothing_up() -> None:
    assert not blew_up(looks(0.5, 900.0, blank=float("inf")))
    assert not blew_up([])
