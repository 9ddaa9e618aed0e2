"""A job searched by ddpg: a real network, its latency table, and results of another strategy to learn from."""

from __future__ import annotations

from collections.abc import Callable

from hw_profiles.host_lock import HostLock
from search.evaluation import Status
from workers.job import run
from workers.plan import Budget, JobPlan, Named
from workers.progress import Evaluated
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def test_a_job_is_searched_by_ddpg_within_its_limit(job: Job, lock: HostLock) -> None:
    plan, ports = job(
        ratio=0.85,
        methods=(Named("filter_prune"), Named("int8_ptq")),
        strategies=(Named("ddpg", {"hidden": 32}), Named("random")),
        budget=Budget(evaluations=8, wall_s=600, finalists=1),
    )
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    found = [m for m in ports.messages if isinstance(m, Evaluated) and m.evaluation.candidate.searched]
    ours = [m for m in found if m.strategy == "ddpg"]
    assert len(ours) >= 4
    assert all(m.evaluation.status is Status.COMPLETED and m.feasible for m in ours)
    learned = [parent for m in ours for parent in m.evaluation.candidate.parents]
    assert len(set(learned)) == len(learned)
    assert {m.evaluation.candidate.id for m in found} > set(learned)
    assert any(parent.startswith("random") for parent in learned)
