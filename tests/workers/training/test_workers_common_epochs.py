"""The wall seconds bound training: control and finalists train for as many epochs as fit, all alike."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from compress.graph.fold import fold_norms
from compress.network import Network
from compress.training.direct import fine_tune as honest
from compress.training.fit import Step
from hw_profiles.host_lock import HostLock
from workers.job import Outcome, run
from workers.plan import Budget, JobPlan, Training
from workers.progress import Message, Phased, Warned
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]
EPOCH_S = 1000.0


class Slow:
    """A trainer whose every epoch takes EPOCH_S. `epochs`: how many were trained, by the epochs of their recipe."""

    def __init__(self) -> None:
        self.epochs = Counter[int]()

    def clock_s(self) -> float:
        return time.monotonic() + EPOCH_S * self.epochs.total()

    def train(self, *arguments: Any) -> Iterator[Step]:
        for step in honest(*arguments):
            if step.last_of_epoch:
                self.epochs[step.epochs] += 1
            yield step

    def run(self, plan: JobPlan, ports: MemoryPorts, lock: HostLock) -> Outcome:
        return run(plan, ports, lock, clock_s=self.clock_s, train=self.train)


@pytest.fixture
def slow() -> Slow:
    return Slow()


def spent_s(ports: MemoryPorts) -> float:
    return max(m.spent_s for m in ports.messages if isinstance(m, Phased))


def test_all_train_for_the_epochs_that_the_wall_seconds_last_for(job: Job, lock: HostLock, slow: Slow) -> None:
    plan, ports = job(budget=Budget(evaluations=2, wall_s=7500.0, finalists=2), training=Training(50, "none"))
    outcome = slow.run(plan, ports, lock)
    assert outcome.verdict is not None
    # One of the long schedule shows what an epoch takes; then three of the control and of the one finalist.
    assert slow.epochs == {50: 1, 3: 6}
    assert spent_s(ports) <= 7500.0
    warning, late = ports.warnings
    assert late.startswith("7500 wall seconds were not enough to finish training random-")
    assert "7500 wall seconds are not enough for 50 epochs" in warning
    assert warning.endswith("so networks are trained for 3 epochs.")
    report = json.loads(ports.files["report_json"].read_text())
    assert report["warnings"] == [warning, late]
    assert report["facts"]["training"].startswith("3 epochs")
    assert report["facts"]["finalists given up"].endswith(": the wall seconds are not enough for it")


def test_what_was_decided_holds_for_a_run_that_died(job: Job, lock: HostLock, slow: Slow) -> None:
    plan, ports = job(budget=Budget(evaluations=2, wall_s=7500.0, finalists=1), training=Training(50, "none"))

    class Killed(BaseException):
        pass

    def observe(message: Message) -> None:
        if isinstance(message, Warned):
            raise Killed

    ports.observe = observe
    with pytest.raises(Killed):
        slow.run(plan, ports, lock)
    ports.observe = lambda message: None
    slow.run(plan, ports, lock)
    assert slow.epochs == {50: 1, 3: 6}
    assert len(ports.warnings) == 1


def test_a_recipe_that_fits_is_left_alone(job: Job, lock: HostLock, slow: Slow) -> None:
    plan, ports = job(budget=Budget(evaluations=2, wall_s=8500.0, finalists=1), training=Training(4, "none"))
    slow.run(plan, ports, lock)
    assert slow.epochs == {4: 8}
    assert not ports.warnings


def test_one_epoch_is_the_least(job: Job, lock: HostLock, slow: Slow) -> None:
    plan, ports = job(budget=Budget(evaluations=2, wall_s=10.0, finalists=2), training=Training(3, "none"))
    assert slow.run(plan, ports, lock).verdict is not None
    assert slow.epochs == {3: 1, 1: 2}


def _same(network: Network) -> Network:
    return network


@pytest.mark.parametrize(("wall_s", "controls"), [(2500.0, 1), (3500.0, 2)])
def test_a_second_control_counts(
    wall_s: float,
    controls: int,
    job: Job,
    lock: HostLock,
    trained: Network,
    slow: Slow,
) -> None:
    plan, ports = job(budget=Budget(evaluations=2, wall_s=wall_s, finalists=1), training=Training(1, "none"))
    plan = replace(plan, model=replace(plan.model, sha256=ports.put_bytes(fold_norms(trained).save())))

    def forgetting(network: Network, *arguments: Any) -> Iterator[Step]:
        """With given-back batch norms, training forgets everything: a second control is wanted."""
        for step in slow.train(network, *arguments):
            if any(node.op_type == "BatchNormalization" for node in network.nodes):
                forgetful = step.network().with_constants({"fc.weight": np.zeros_like(network.constants["fc.weight"])})
                step = replace(step, network=partial(_same, forgetful))
            yield step

    run(plan, ports, lock, clock_s=slow.clock_s, train=forgetting)
    assert slow.epochs == {1: controls + 1}
    assert spent_s(ports) <= wall_s
    assert any("are not enough for a second control" in line for line in ports.lines) == (controls == 1)
