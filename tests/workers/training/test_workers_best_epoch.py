"""Finalists and the control compete after their best epoch, and an interrupted run knows which that was."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from compress.network import Network
from compress.task import Task
from compress.training.direct import fine_tune as honest
from compress.training.fit import Step
from hw_profiles.host_lock import HostLock
from workers.evaluating.epoch_score import PASSES, SHARE, images_rated
from workers.job import run
from workers.plan import Budget, JobPlan, Training
from workers.pools.executor import LocalExecutor
from workers.ports import Outcome
from workers.progress import Checkpointed, EpochTrained, Message
from workers.running.memory_ports import MemoryPorts
from workers.training.parallel_training import Course, Ended, learn

Job = Callable[..., tuple[JobPlan, MemoryPorts]]
EPOCHS = 3


def _same(network: Network) -> Network:
    return network


def fading(*arguments: Any, classes: int = 3) -> Iterator[Step]:
    """Training that forgets so many of the ten classes after its first epoch."""
    for step in honest(*arguments):
        if step.epoch and step.last_of_epoch:
            network = step.network()
            weight = network.constants["fc.weight"].copy()
            weight[:classes] = 0.0
            step = replace(step, network=partial(_same, network.with_constants({"fc.weight": weight})))
        yield step


@pytest.fixture
def three_epochs(job: Job) -> tuple[JobPlan, MemoryPorts]:
    return job(training=Training(EPOCHS, "none"), budget=Budget(evaluations=3, wall_s=600, finalists=1))


def report(ports: MemoryPorts) -> Any:
    return json.loads(ports.files["report_json"].read_text())


def shown(outcome: Outcome) -> Mapping[str, Any]:
    return outcome.summaries["best" if outcome.verdict == "met" else "nearest"]


def test_control_and_finalists_are_judged_after_their_best_epoch(
    three_epochs: tuple[JobPlan, MemoryPorts], lock: HostLock
) -> None:
    plan, ports = three_epochs
    outcome = run(plan, ports, lock, train=fading)
    control = outcome.summaries["control"]
    assert (control["epoch"], control["epochs"], control["untrained"]) == (1, EPOCHS, False)
    (finalist,) = report(ports)["finalists"]
    assert finalist["epochs"] == EPOCHS
    assert finalist["untrained"] or finalist["epoch"] == 1
    assert (shown(outcome)["epoch"], shown(outcome)["untrained"]) == (finalist["epoch"], finalist["untrained"])
    assert finalist["epoch_scores"][0] > max(finalist["epoch_scores"][1:])
    assert len(finalist["epoch_scores"]) == EPOCHS
    (line,) = [text for text in ports.lines if text.startswith("control is judged after epoch 1 of 3: ")]
    assert f"accuracy {control['accuracy']:.2%}, against " in line
    assert "after epoch 1 of 3" in ports.files["report_html"].read_text()
    assert "flatters all of them" in report(ports)["facts"]["weights"]
    assert not any("continued a sample" in text for text in ports.warnings), "the control had as many epochs"


def test_every_epoch_is_told(three_epochs: tuple[JobPlan, MemoryPorts], lock: HostLock) -> None:
    plan, ports = three_epochs
    run(plan, ports, lock, train=fading)
    (finalist,) = report(ports)["finalists"]
    told = [m for m in ports.messages if isinstance(m, EpochTrained)]
    assert [(m.network, m.epoch) for m in told] == [
        (name, epoch) for name in ("control", finalist["name"]) for epoch in range(1, EPOCHS + 1)
    ]
    assert [m.score for m in told[EPOCHS:]] == finalist["epoch_scores"]
    assert {(m.metric, m.epochs) for m in told} == {("accuracy", EPOCHS)}
    assert all(m.loss > 0 and m.elapsed_s > 0 for m in told)


def test_a_training_that_gets_better_and_better_is_judged_at_its_end(
    three_epochs: tuple[JobPlan, MemoryPorts], lock: HostLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = itertools.count(1)
    monkeypatch.setattr("workers.training.trainer.epoch_score", lambda *_: next(scores) / 1000)
    plan, ports = three_epochs
    control = run(plan, ports, lock).summaries["control"]
    assert (control["epoch"], control["epochs"], control["untrained"]) == (EPOCHS, EPOCHS, False)
    assert not any("is judged after epoch" in text for text in ports.lines)


def test_what_training_ruins_late_is_judged_as_it_was_before_that(
    three_epochs: tuple[JobPlan, MemoryPorts], lock: HostLock
) -> None:
    plan, ports = three_epochs
    control = run(plan, ports, lock, train=partial(fading, classes=10)).summaries["control"]
    assert (control["epoch"], control["untrained"]) == (1, False)
    assert control["accuracy"] > 0.8
    assert not any("ruins the control" in text for text in ports.warnings)


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_that_dies_after_any_epoch_repeats_none_and_chooses_the_same(
    epoch: int, three_epochs: tuple[JobPlan, MemoryPorts], job: Job, lock: HostLock
) -> None:
    plan, ports = three_epochs
    done, begun = Counter[str](), Counter[str]()

    def counted(network: Network, *arguments: Any) -> Iterator[Step]:
        for step in fading(network, *arguments):
            done[network.digest] += step.last_of_epoch
            yield step

    def dies(message: Message) -> None:
        """After this epoch's checkpoint of each network, once."""
        if isinstance(message, Checkpointed) and message.name.startswith("training-3-"):
            name = message.name.removesuffix("-seconds")
            begun[name] += message.name.endswith("-seconds")
            if begun[name] == epoch and message.name.endswith("-seconds"):
                begun[name] += EPOCHS  # only once
                raise Killed

    ports.observe = dies
    deaths = 0
    while True:
        try:
            outcome = run(plan, ports, lock, train=counted)
        except Killed:
            deaths += 1
        else:
            break
    assert deaths == 2, "the control's training and the finalist's"
    assert sorted(done.values()) == [EPOCHS, EPOCHS]
    finalists = [(each["epoch"], each["untrained"], each["accuracy"]) for each in report(ports)["finalists"]]
    calm_plan, calm = job(training=plan.training, budget=plan.budget)
    whole = run(calm_plan, calm, lock, train=fading)
    assert outcome.summaries["control"] == whole.summaries["control"]
    assert finalists == [(e["epoch"], e["untrained"], e["accuracy"]) for e in report(calm)["finalists"]]


class Aside(LocalExecutor):
    """Trains in parallel, one after another in this process."""

    side_by_side = True

    def train(self, course: Course) -> Mapping[str, Ended]:
        return {
            name: learn(lesson, partial(lambda own, epoch: course.note(own, epoch, epoch.elapsed_s), name))
            for name, lesson in course.lessons.items()
        }


def test_training_in_parallel_makes_the_same_choice(job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch) -> None:
    def arbitrary(task: Task, network: Network, *_: Any) -> float:
        """The same for the same weights, and high for any of the epochs."""
        return float(np.abs(network.constants["fc.weight"]).sum() % 1.0)

    for module in ("trainer", "parallel_training"):
        monkeypatch.setattr(f"workers.training.{module}.epoch_score", arbitrary)
    found = []
    for executor in (LocalExecutor(), Aside()):
        plan, ports = job(training=Training(EPOCHS, "none"), budget=Budget(evaluations=3, wall_s=600, finalists=1))
        shutil.rmtree(ports.work_dir / "checkpoints", ignore_errors=True)  # of the other executor
        control = run(plan, ports, lock, executor).summaries["control"]
        (finalist,) = report(ports)["finalists"]
        found.append((control, finalist["epoch"], finalist["accuracy"], finalist["epoch_scores"]))
    assert found[0] == found[1]


@pytest.mark.parametrize(("ranking", "trained"), [(2000, 900), (500, 4500), (2000, 50_000), (10, 1)])
def test_rating_takes_a_small_share_of_an_epoch(ranking: int, trained: int) -> None:
    count = images_rated(ranking, trained)
    assert 1 <= count <= ranking
    assert count == 1 or count <= SHARE * PASSES * trained
    assert count == min(ranking, max(1, int(SHARE * PASSES * trained)))
