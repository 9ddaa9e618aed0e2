"""A job searched by hakd: students from the measured table, a second look after a short distillation, and attention
transfer in the training.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from hw_profiles.host_lock import HostLock
from search.evaluation import Status
from workers.job import run
from workers.plan import Budget, JobPlan, Named, Training
from workers.progress import Evaluated
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def test_a_job_searched_by_hakd_meets_its_limit(job: Job, lock: HostLock) -> None:
    plan, ports = job(
        ratio=0.85,
        methods=(Named("filter_prune"), Named("int8_ptq")),
        strategies=(Named("hakd", {"students": 3}),),
        budget=Budget(evaluations=10, wall_s=600, finalists=2),
        training=Training(epochs=1, augment="none", attention=100.0),
    )
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    told = [m.evaluation for m in ports.messages if isinstance(m, Evaluated) and m.strategy == "hakd"]
    searched = [evaluation for evaluation in told if evaluation.candidate.searched]
    assert all(evaluation.status is Status.COMPLETED for evaluation in searched)
    fidelities = [evaluation.candidate.fidelity for evaluation in searched]
    assert fidelities[:3] == ["F2"] * 3
    assert fidelities.count("F3") == 1
    second = next(evaluation.candidate for evaluation in searched if evaluation.candidate.fidelity == "F3")
    assert second.values in [evaluation.candidate.values for evaluation in searched[:3]]


def test_students_that_are_not_exact_are_told_in_the_result(
    job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.elimination.front._ALL_POINTS", 1)
    plan, ports = job(ratio=0.85, strategies=(Named("hakd"),), budget=Budget(evaluations=4, wall_s=600, finalists=1))
    run(plan, ports, lock)
    (warning,) = [text for text in ports.warnings if text.startswith("hakd: ")]
    assert warning.endswith("because the tables of a limit are too wide to be joined.")
    assert json.loads(ports.files["report_json"].read_text())["warnings"].count(warning) == 1
