"""What a restart may not decide again, and estimates that follow the tables."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from hw_profiles.host_lock import HostLock
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.metrics import latency_metric
from search.problem import Problem
from search.space import Values
from search.synthetic.replay import make_replay
from workers.job import run
from workers.plan import JobPlan
from workers.pools.executor import LocalExecutor
from workers.problem.estimated import estimated
from workers.progress import Asked, Checkpointed, Evaluated, Message, Phased, Summarised
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.running.memory_ports import MemoryPorts
from workers.search.best_so_far import BestSoFar
from workers.training.choosing import chosen_finalists
from workers.training.parallel_training import Course, Ended, learn

Job = Callable[..., tuple[JobPlan, MemoryPorts]]
LATENCY = latency_metric("small-cpu")


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def dying(wanted: Callable[[Message], bool]) -> Callable[[Message], None]:
    def observe(message: Message) -> None:
        if wanted(message):
            raise Killed

    return observe


def kill(plan: JobPlan, ports: MemoryPorts, lock: HostLock, wanted: Callable[[Message], bool]) -> None:
    ports.observe = dying(wanted)
    with pytest.raises(Killed):
        run(plan, ports, lock)
    ports.observe = lambda message: None


def trained_names(ports: MemoryPorts) -> set[str]:
    return {m.name for m in ports.messages if isinstance(m, Checkpointed) and m.name.startswith("trained-finalist")}


def test_a_run_that_dies_twice_after_the_search_never_searches_again(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    kill(plan, ports, lock, lambda m: isinstance(m, Checkpointed) and m.name.startswith("verify"))
    asked = sum(isinstance(m, Asked) for m in ports.messages)
    chosen = trained_names(ports)
    kill(plan, ports, lock, lambda m: isinstance(m, Phased) and m.phase == "train")  # its phase is "profile" again
    before = len(ports.messages)
    # A budget that grew in between must not reopen the search either.
    plan = replace(plan, budget=replace(plan.budget, evaluations=plan.budget.evaluations + 2))
    assert run(plan, ports, lock).verdict == "met"
    assert sum(isinstance(m, Asked) for m in ports.messages) == asked
    assert not [m for m in ports.messages[before:] if isinstance(m, Phased) and m.phase == "search"]
    assert trained_names(ports) == chosen


class FirstAlone(LocalExecutor):
    """Trains the control and the first finalist, and in a second course the other one."""

    side_by_side = True

    def __init__(self) -> None:
        self.courses: list[Course] = []

    def train(self, course: Course) -> Mapping[str, Ended]:
        ended = {
            name: learn(lesson, partial(lambda own, epoch: course.note(own, epoch, epoch.elapsed_s), name))
            for name, lesson in list(course.lessons.items())[:2]
        }
        self.courses.append(course)
        return ended


def test_a_course_after_a_pause_knows_that_one_finalist_is_trained(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    executor = FirstAlone()
    ports.signals = lambda: "pause" if executor.courses else "continue"
    assert run(plan, ports, lock, executor).end == "paused"
    ports.signals = lambda: "continue"
    assert run(plan, ports, lock, executor).verdict == "met"
    first, second = executor.courses
    assert (first.one_trained, second.one_trained) == (False, True)
    assert (len(first.lessons), len(second.lessons)) == (3, 1)
    assert not second.lessons.keys() & first.spared


def test_the_report_of_a_run_that_died_lists_what_was_searched_alone(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    kill(plan, ports, lock, lambda m: isinstance(m, Checkpointed) and m.name == "test-accuracy")
    fidelities = {m.evaluation.candidate.fidelity for m in ports.messages if isinstance(m, Evaluated)}
    assert fidelities == {"F2", "F4", "F5"}
    run(plan, ports, lock)
    report = json.loads(ports.files["report_json"].read_text())
    assert {each["fidelity"] for each in report["evaluations"]} == {"F2"}
    assert len(report["evaluations"]) == plan.budget.evaluations
    searched_s = sum(each["elapsed_s"] for each in report["evaluations"])
    assert report["facts"]["seconds of evaluation"] == round(searched_s, 1)


def test_finalists_stay_when_the_tables_change_between_runs(
    job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ports = job()
    kill(plan, ports, lock, lambda m: isinstance(m, Checkpointed) and m.name.startswith("verify"))
    chosen = trained_names(ports)

    def others(evaluated: Sequence[Evaluated], problem: Problem, count: int) -> list[Evaluated]:
        return list(evaluated)[:count][::-1]

    monkeypatch.setattr("workers.training.finalists.chosen_finalists", others)
    run(plan, ports, lock)
    assert trained_names(ports) == chosen


def test_the_test_part_is_read_once_however_often_a_run_dies(
    job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ports = job()
    read: list[int] = []
    honest = Inputs.test_score

    def counted(inputs: Inputs, model: bytes) -> float:
        read.append(len(model))
        return honest(inputs, model)

    monkeypatch.setattr(Inputs, "test_score", counted)
    for _ in range(2):
        kill(plan, ports, lock, lambda m: isinstance(m, Phased) and m.phase == "package")
    run(plan, ports, lock)
    assert len(read) == 2  # the original and the one chosen file


def searched(problem: Problem, count: int) -> list[Evaluated]:
    """Random candidates whose recorded latency is from an old table: half of what the newest says."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        values = problem.space.sample(rng)
        metrics = {name: float(column[0]) for name, column in problem.estimate([values]).items()}
        metrics = {"macs": 1.0, "parameters": 1.0, "size_bytes": 1.0, "nonzeros": 1.0, "stored_bytes": 1.0} | metrics
        metrics |= {"accuracy": 0.5 + 0.001 * number, LATENCY: 0.5 * metrics[LATENCY]}
        evaluation = Evaluation(Candidate(f"c{number}", values), Status.COMPLETED, metrics)
        found.append(Evaluated("s", evaluation, problem.feasible(metrics)))
    return found


def test_finalists_are_chosen_by_the_newest_tables() -> None:
    problem = make_replay(3, knobs=6, levels=8, precision=False).problem
    recorded = searched(problem, 40)
    chosen = chosen_finalists(recorded, problem, 3)
    (bound,) = (c.bound for c in problem.constraints if c.metric == LATENCY)
    for each in chosen:
        newest = float(problem.estimate([each.evaluation.candidate.values])[LATENCY][0])
        assert each.evaluation.metrics[LATENCY] == newest <= bound
    assert [e for e in recorded if e.feasible and e.evaluation.metrics[LATENCY] * 2 > bound], "stale ones would win"


def scaled(problem: Problem, factor: float) -> Problem:
    """The same by tables that say everything takes so much longer."""
    honest = problem.estimate

    def estimate(batch: Sequence[Values]) -> Mapping[str, np.ndarray]:
        columns = dict(honest(batch))
        return {**columns, LATENCY: factor * columns[LATENCY]}

    return replace(problem, estimate=estimate)


def test_the_best_so_far_is_taken_back_where_newer_tables_say_so() -> None:
    problem = make_replay(3, knobs=6, levels=8, precision=False).problem
    newest = [scaled(problem, 0.01)]
    best = BestSoFar(lambda: newest[0], ())
    first, second, third, fourth = searched(problem, 4)
    (shown,) = best(first)
    assert isinstance(shown, Summarised)
    assert shown.summary is not None
    assert shown.summary["evaluation_id"] == "c0"
    assert best(replace(second, evaluation=replace(second.evaluation, metrics=first.evaluation.metrics))) == ()
    newest[0] = scaled(problem, 100.0)
    assert best(third) == (Summarised("best", None),)
    (newer,) = estimated([fourth.evaluation], newest[0])
    assert best(replace(fourth, evaluation=newer)) == ()


def test_a_run_that_was_fenced_off_writes_into_no_draft_of_the_next(
    job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old run halts in the middle of a draft; the new one writes the same file whole; the old one goes on."""
    plan, ports = job()
    old, new = (Context(plan, ports, ports.recorded(), lock) for _ in range(2))
    path = old.folder("checkpoints") / "state.json"
    drafts: list[str] = []
    honest = os.fsync

    def interrupted(number: int) -> None:
        honest(number)
        drafts.extend(each.name for each in path.parent.glob("*.draft"))
        monkeypatch.setattr(os, "fsync", honest)
        new.keep_bytes("state", b"the newer run's, which is longer", ".json")
        assert path.read_bytes() == b"the newer run's, which is longer"

    monkeypatch.setattr(os, "fsync", interrupted)
    old.keep_bytes("state", b"old", ".json")
    assert path.read_bytes() == b"old"
    assert len(drafts) == 1
    assert not list(path.parent.glob("*.draft"))


def test_waiting_for_the_machine_is_no_training(job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent holds the lock for an hour before each step: none of it counts as seconds of the budget."""
    plan, ports = job()
    plan = replace(plan, budget=replace(plan.budget, wall_s=1e9))
    waited_s = [0.0]
    honest = HostLock.shared

    def shared(self: HostLock) -> AbstractContextManager[None]:
        waited_s[0] += 3600.0
        return honest(self)

    monkeypatch.setattr(HostLock, "shared", shared)
    run(plan, ports, lock, clock_s=lambda: time.monotonic() + waited_s[0])
    spent_s = [m.spent_s for m in ports.messages if isinstance(m, Phased) and m.phase == "train"]
    assert len(spent_s) > 2
    assert spent_s[-1] - spent_s[0] < 3600.0
    evaluations = [m.evaluation for m in ports.messages if isinstance(m, Evaluated)]
    trained = [each.elapsed_s for each in evaluations if each.candidate.fidelity == "F4"]
    assert trained
    assert all(0 < elapsed_s < 3600.0 for elapsed_s in trained)
