"""The control's first epoch decides before networks are trained in parallel; an executor trains what comes after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from compress.network import Network
from compress.scheme import Scheme
from compress.training.direct import fine_tune
from compress.training.fit import Step
from compress.training.recipe import Recipe
from hw_profiles.host_lock import HostLock
from workers.plan import JobPlan, Training
from workers.pools.executor import LocalExecutor
from workers.running.common_rate import LOWER, rate_is_decided
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.running.job_run import JobRun
from workers.running.memory_ports import MemoryPorts
from workers.training import trainer
from workers.training.trainer import Trainer

Job = Callable[..., tuple[JobPlan, MemoryPorts]]
Ahead = Callable[[str], None]
EPOCHS = 5


class Aside(LocalExecutor):
    """Trains in parallel, but nothing ever ends."""

    side_by_side = True


class Killed(BaseException):
    pass


@pytest.fixture
def seen() -> list[Step]:
    """The steps done in this process."""
    return []


@pytest.fixture
def context(job: Job, lock: HostLock) -> Context:
    plan, ports = job(training=Training(EPOCHS, "none"))
    return Context(plan, ports, ports.recorded(), lock)


@pytest.fixture
def ahead(context: Context, trained: Network, seen: list[Step], monkeypatch: pytest.MonkeyPatch) -> Ahead:
    monkeypatch.setattr(trainer, "CutEvaluator", lambda *_: None)
    material: Any = SimpleNamespace(network=trained, ranking=Inputs.open(context).ranking(100), scheme=Scheme.of([]))

    def told(*arguments: Any) -> Iterator[Step]:
        for step in fine_tune(*arguments):
            seen.append(step)
            yield step

    def make(form: str) -> None:
        run = JobRun(context, Inputs.open(context), Aside(), told)
        Trainer(run, material, Recipe(EPOCHS, batch=300, augment="none"), 1, form).ahead()

    return make


def test_a_run_that_died_before_the_decision_does_not_train_to_the_end(
    ahead: Ahead, seen: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> bool:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_shortens", die)
        with pytest.raises(Killed):
            ahead("")
    ahead("")
    assert {step.epoch for step in seen} == {0, 1}, "the one that was trained already, and one to measure its time"


def test_every_form_is_checked(
    ahead: Ahead, context: Context, seen: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "blown_up", lambda first: "fails" if first and seen[-1].lr > 0.005 else None)
    ahead("")
    ahead("plain-")
    ahead("plain-")
    assert rate_is_decided(context)
    assert rate_is_decided(context, "plain-")
    assert {step.epoch for step in seen} == {0}
    rates = [max(step.lr for step in seen[i : i + 3]) for i in range(0, len(seen), 3)]
    assert rates == pytest.approx([0.01, 0.01 * LOWER] * 2, rel=0.2)
