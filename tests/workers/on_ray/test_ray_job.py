"""A whole job on Ray: actors search, one Tune run trains; and what ASHA, a lost worker and the user do to it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from processes import below, command_line

from compress.training.checkpoint import Checkpoint
from compress.training.recipe import Recipe
from hw_profiles.host_lock import HostLock
from workers.errors import PoolBroken
from workers.job import run
from workers.on_ray.executor import RayExecutor
from workers.plan import JobPlan, Training
from workers.progress import Checkpointed
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.running.memory_ports import MemoryPorts
from workers.testing import PATIENCE_S
from workers.training.parallel_training import Course, Ended, Epoch, Lesson

pytestmark = pytest.mark.long
Job = Callable[..., tuple[JobPlan, MemoryPorts]]


@pytest.fixture(scope="module")
def executor() -> Iterator[RayExecutor]:
    found = RayExecutor(cpus=2)
    found.start()
    found._cluster.wait(PATIENCE_S)
    yield found
    found.close()


@pytest.fixture
def lessons(job: Job, lock: HostLock, tmp_path: Path) -> Callable[..., dict[str, Lesson]]:
    """Lessons of the same network under several names; `rates`: name -> learning rate."""

    def make(rates: Mapping[str, float], epochs: int) -> dict[str, Lesson]:
        plan, ports = job()
        context = Context(plan, ports, ports.recorded(), lock)
        inputs = Inputs.open(context)
        network = tmp_path / "network.onnx"
        network.write_bytes(inputs.network.save())
        path = ports.path
        return {
            name: Lesson(
                plan=plan,
                model=path(plan.model.sha256),
                dataset=path(plan.dataset.sha256),
                recipe=Recipe(epochs=epochs, batch=32, lr=rate, augment="none"),
                network=network,
                checkpoint=tmp_path / f"{name}.safetensors",
                values={},
                guard=lock.shared,
                images=200,
            )
            for name, rate in rates.items()
        }

    return make


def course(
    lessons: Mapping[str, Lesson], folder: Path, note: Callable[[str, Epoch, float], None], **changes: object
) -> Course:
    made = Course(lessons, frozenset(["control"]), folder, 2, 1e9, True, False, note, lambda: False)
    return replace(made, **changes)  # type: ignore[arg-type]  # fields of the course


def test_a_job_ends_on_ray_as_it_does_in_child_processes(job: Job, lock: HostLock, executor: RayExecutor) -> None:
    plan, ports = job()
    plan = replace(plan, effort=replace(plan.effort, processes=2))
    outcome = run(plan, ports, lock, executor)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    names = {m.name for m in ports.messages if isinstance(m, Checkpointed)}
    assert {"training-1-control", "training-1-control-ended", "trained-control"} <= names
    assert sum(name.startswith("trained-finalist") and not name.endswith("onnx") for name in names) == 2
    before = len(ports.messages)
    again = run(plan, ports, lock, executor)
    assert again.summaries == outcome.summaries
    repeated = {m.name for m in ports.messages[before:] if isinstance(m, Checkpointed)}
    assert not {name for name in repeated if name.startswith("train")}, "nothing is trained twice"


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_job_of_so_few_epochs_ends(epochs: int, job: Job, lock: HostLock, executor: RayExecutor) -> None:
    plan, ports = job(training=Training(epochs, "none"))
    assert plan.objective_metric == "accuracy", "what ASHA is for"
    outcome = run(plan, ports, lock, executor)
    assert (outcome.end, outcome.verdict) == ("finished", "met")


def test_asha_stops_losers_and_never_the_control(
    lessons: Callable[..., dict[str, Lesson]], executor: RayExecutor, tmp_path: Path
) -> None:
    """The control learns nothing at all and goes on; of two finalists the one that forgets is stopped."""
    epochs: dict[str, list[int]] = {}
    made = lessons({"control": 1e-8, "good": 0.01, "bad": 4.0}, epochs=6)

    def note(name: str, epoch: Epoch, wall_s: float) -> None:
        epochs.setdefault(name, []).append(epoch.epoch)

    ended = executor.train(course(made, tmp_path / "course", note, processes=1))
    assert ended["control"] == ended["good"] == Ended("trained")
    assert ended["bad"].state == "stopped"
    assert "behind the other networks" in ended["bad"].reason
    assert epochs["control"] == epochs["good"] == [1, 2, 3, 4, 5, 6]
    assert len(epochs.get("bad", [])) < 6
    assert not (tmp_path / "course" / "tune").exists()


def test_a_training_whose_worker_is_killed_goes_on_from_its_checkpoint(
    lessons: Callable[..., dict[str, Lesson]], executor: RayExecutor, tmp_path: Path
) -> None:
    made = lessons({"control": 0.01}, epochs=6)
    reference = lessons({"whole": 0.01}, epochs=6)
    epochs: list[int] = []
    killed: list[int] = []

    def note(name: str, epoch: Epoch, wall_s: float) -> None:
        epochs.append(epoch.epoch)
        if epoch.epoch == 2 and not killed:
            killed.extend(_trainers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    assert executor.train(course(made, tmp_path / "course", note)) == {"control": Ended("trained")}
    assert len(killed) == 1
    # The one at hand may have left its checkpoint and died before it could say so: it is not repeated either.
    assert epochs == sorted(set(epochs))
    assert (epochs[:2], epochs[-1]) == ([1, 2], 6)
    assert len(epochs) >= 5
    executor.train(course(reference, tmp_path / "course", lambda name, epoch, wall_s: None))
    ours, whole = (
        Checkpoint.from_bytes(path.read_bytes()) for path in (made["control"].checkpoint, reference["whole"].checkpoint)
    )
    assert (ours.step, ours.fingerprint) == (whole.step, whole.fingerprint)
    assert all(np.array_equal(value, whole.weights[name]) for name, value in ours.weights.items())


def test_time_that_is_used_up_leaves_the_control_and_one_trained(
    lessons: Callable[..., dict[str, Lesson]], executor: RayExecutor, tmp_path: Path
) -> None:
    """One after another: the first is needed as something to judge, those behind it are not."""
    from ray.tune.schedulers import FIFOScheduler

    made = lessons({"first": 0.01, "second": 0.01, "control": 0.01}, epochs=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.on_ray.training.SparingAsha", lambda watch, spared, epochs: FIFOScheduler())
        late = course(made, tmp_path / "course", lambda name, epoch, wall_s: None, left_s=0.0, processes=1)
        ended = executor.train(late)
    assert ended["first"] == ended["control"] == Ended("trained")
    assert ended["second"] == Ended("stopped", "the wall seconds were used up after epoch 1", out_of_time=True)


def test_seconds_of_trainings_side_by_side_are_counted_once(
    lessons: Callable[..., dict[str, Lesson]], executor: RayExecutor, tmp_path: Path
) -> None:
    told: dict[str, list[tuple[float, float]]] = {}

    def note(name: str, epoch: Epoch, wall_s: float) -> None:
        told.setdefault(name, []).append((epoch.elapsed_s, wall_s))

    executor.train(course(lessons({"control": 0.01, "a": 0.01}, epochs=2), tmp_path / "course", note))
    assert all(wall_s == elapsed_s / 2 for each in told.values() for elapsed_s, wall_s in each)
    assert {name: len(each) for name, each in told.items()} == {"control": 2, "a": 2}


def test_the_user_interrupts_a_course(
    lessons: Callable[..., dict[str, Lesson]], executor: RayExecutor, tmp_path: Path
) -> None:
    made = lessons({"control": 0.01}, epochs=500)
    begun = threading.Event()
    ended = executor.train(
        course(made, tmp_path / "course", lambda name, epoch, wall_s: begun.set(), interrupted=begun.is_set)
    )
    assert ended == {}
    assert made["control"].checkpoint.exists()


def test_what_a_note_raises_comes_out_and_a_network_that_is_missing_is_nobodys_verdict(
    lessons: Callable[..., dict[str, Lesson]], executor: RayExecutor, tmp_path: Path
) -> None:
    made = lessons({"control": 0.01}, epochs=3)

    def note(name: str, epoch: Epoch, wall_s: float) -> None:
        raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"):
        executor.train(course(made, tmp_path / "course", note))
    lost = {"control": replace(made["control"], network=tmp_path / "missing.onnx")}
    with pytest.raises(PoolBroken, match=r"missing\.onnx"):
        executor.train(course(lost, tmp_path / "course", lambda name, epoch, wall_s: None))


def test_a_stopped_finalist_is_recorded_and_the_job_goes_on(
    job: Job, lock: HostLock, executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ports = job()
    train = executor.train

    def stopping(made: Course) -> Mapping[str, Ended]:
        ended = dict(train(made))
        finalists = [name for name in ended if name != "control"]
        return {**ended, **({finalists[-1]: Ended("stopped", "behind")} if len(finalists) > 1 else {})}

    monkeypatch.setattr(executor, "train", stopping)
    assert run(plan, ports, lock, executor).end == "finished"
    stopped = [e for e in ports.recorded().evaluations if e.evaluation.reason == "behind"]
    assert [e.evaluation.status.name for e in stopped] == ["STOPPED"]
    assert not stopped[0].evaluation.candidate.searched


def _trainers() -> list[int]:
    """Processes of ours that Tune trains in."""
    found: list[int] = []
    end_s = time.monotonic() + PATIENCE_S
    while not found and time.monotonic() < end_s:
        found = [pid for pid in below(os.getpid()) if "ImplicitFunc" in command_line(pid)]
    return found
