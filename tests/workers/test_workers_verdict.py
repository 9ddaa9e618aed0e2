"""What a verdict says and shows: slots, warnings, predictions, and what restarts may not change about it."""

from __future__ import annotations

from collections.abc import Callable

from hw_profiles.host_lock import HostLock
from workers.job import run
from workers.memory_ports import MemoryPorts
from workers.plan import JobPlan
from workers.progress import Summarised

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def test_a_missed_job_has_a_nearest_and_no_best(job: Job, lock: HostLock) -> None:
    plan, ports = job(limits={"min_accuracy": 1.0})
    outcome = run(plan, ports, lock)
    assert outcome.verdict == "missed"
    announced = [m for m in ports.messages if isinstance(m, Summarised) and m.slot == "best"]
    assert announced[0].summary is not None, "the search predicts a feasible one"
    assert announced[-1].summary is None
    assert set(ports.summaries) == set(outcome.summaries) == {"original", "control", "nearest"}


def test_a_job_that_met_its_limits_has_a_best_and_no_nearest(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    outcome = run(plan, ports, lock)
    assert set(ports.summaries) == set(outcome.summaries) == {"original", "control", "best"}
