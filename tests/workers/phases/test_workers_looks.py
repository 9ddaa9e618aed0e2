"""The statistics phase takes few quick looks, infers the other sensitivities, says so, and repeats none of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.network import Network
from compress.task import Targets
from compress.tasks.classification import TASK
from hw_profiles.host_lock import HostLock
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.space import Space
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import QUICK, CutEvaluator
from workers.phases.statistics import sensitivities
from workers.plan import JobPlan
from workers.pools.in_process_pool import InProcessPool
from workers.pools.pool import Evaluator
from workers.problem import sensitivity
from workers.progress import Checkpointed, Message
from workers.running.context import Context
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]
Digits = tuple[np.ndarray, np.ndarray]
LEVELS = 8 + 29 + 29  # of conv0 with at least 1 of 8 channels, conv1 and conv2 with at least 4 of 32


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Looked:
    """An evaluator that keeps the ids of what it evaluates."""

    def __init__(self, material: Material) -> None:
        self.ids: list[str] = []
        self._evaluator = CutEvaluator(material, quick_images=100)

    def __call__(self) -> Evaluator:
        return self.evaluate

    def evaluate(self, candidate: Candidate) -> Evaluation:
        assert candidate.recipe == QUICK
        self.ids.append(candidate.id)
        return self._evaluator(candidate)


@pytest.fixture
def material(tmp_path: Path, trained: Network, digits: Digits) -> Material:
    images, labels = preprocess(digits[0], Preprocessing()), digits[1]
    made = Material(tmp_path / "material", (("filter_prune", {}), ("int8_ptq", {})))
    evidence = made.scheme.gather(trained, images[:128], Targets(TASK, labels[:128]))
    short = Part(digits[0][:64], labels[:64])
    made.write(trained, (images[900:1300], labels[900:1300]), images[:128], evidence, short, Preprocessing())
    return Material(made.folder, made.methods)


@pytest.fixture
def space(material: Material) -> Space:
    return Space(material.scheme.knobs(material.network, {}))


def test_few_levels_are_looked_at_and_the_others_inferred(
    job: Job, lock: HostLock, material: Material, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "MAPPED", 5)
    plan, ports = job()
    looked = Looked(material)
    curves = sensitivities(Context(plan, ports, ports.recorded(), lock), space, material, InProcessPool(looked))
    assert len(looked.ids) == len(set(looked.ids)) == 5 + 2, "the uncut network and int8, too"
    assert {knob.name: knob.level_count for knob in space.levelled} == {k: len(each) for k, each in curves.items()}
    (line,) = [line for line in ports.lines if "sensitivity" in line]
    assert f"4 knobs with 7 quick evaluations; the scores of the other {LEVELS - 3 - 5} levels are inferred" in line
    stored = Material(material.folder, material.methods)
    assert sum(int(each.sum()) for each in stored.looked.values()) == 5 + 1 + 4, "each knob's original level is known"
    for name, curve in curves.items():
        assert stored.sensitivity[name].tolist() == curve.tolist()
        if name != "int8_ptq":
            assert curve[0] < curve[-1], "an empty layer loses something"
    exact = CutEvaluator(material, quick_images=100)
    deepest = Candidate("deepest", {**space.whole, "conv1": 4}, recipe=QUICK)
    assert curves["conv1"][0] == pytest.approx(exact(deepest).metrics["accuracy"], abs=0.3)


def test_no_look_is_repeated_after_a_kill(job: Job, lock: HostLock, material: Material, space: Space) -> None:
    plan, ports = job()
    kept: list[str] = []

    def dying(message: Message) -> None:
        if isinstance(message, Checkpointed) and message.name.startswith("looks-"):
            kept.append(message.name)
            if len(kept) == 5:
                raise Killed

    first, second, third = Looked(material), Looked(material), Looked(material)
    ports.observe = dying
    with pytest.raises(Killed):
        sensitivities(Context(plan, ports, ports.recorded(), lock), space, material, InProcessPool(first))
    ports.observe = lambda message: None
    curves = sensitivities(Context(plan, ports, ports.recorded(), lock), space, material, InProcessPool(second))
    assert len(first.ids) == 5
    assert not set(first.ids) & set(second.ids)
    fresh = Material(material.folder, material.methods)
    again = sensitivities(Context(plan, ports, ports.recorded(), lock), space, fresh, InProcessPool(third))
    assert third.ids == []
    assert {name: curve.tolist() for name, curve in again.items()} == {k: each.tolist() for k, each in curves.items()}


def test_a_level_that_cannot_be_evaluated_counts_as_zero(
    job: Job, lock: HostLock, material: Material, space: Space
) -> None:
    class Broken(Looked):
        def evaluate(self, candidate: Candidate) -> Evaluation:
            found = super().evaluate(candidate)
            failed = candidate.values["int8_ptq"] == "int8"
            return Evaluation(candidate, Status.FAILED, {}, 0.0, "no engine") if failed else found

    plan, ports = job()
    context = Context(plan, ports, ports.recorded(), lock)
    curves = sensitivities(context, space, material, InProcessPool(Broken(material)))
    assert curves["int8_ptq"][1] == 0.0
