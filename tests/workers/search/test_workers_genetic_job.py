"""A job of `genetic`: chosen channels, and weights that are handed from one candidate to the next."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from hw_profiles.host_lock import HostLock
from search.evaluation import Status
from workers.job import run
from workers.plan import Budget, JobPlan, Named
from workers.progress import Evaluated
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def test_masks_and_weights_go_from_candidate_to_candidate_and_to_a_finalist(job: Job, lock: HostLock) -> None:
    plan, ports = job(
        ratio=0.85,
        methods=(Named("filter_prune"),),
        strategies=(Named("genetic", {"distil_between": True, "mask_generations": 5}),),
        budget=Budget(evaluations=8, wall_s=600, finalists=2),
    )
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    found = [m.evaluation for m in ports.messages if isinstance(m, Evaluated) and m.evaluation.candidate.searched]
    assert all(evaluation.status is Status.COMPLETED for evaluation in found), [e.reason for e in found]
    assert all(evaluation.candidate.masks for evaluation in found)
    stages = sorted((e for e in found if e.candidate.fidelity == "F3"), key=lambda e: e.candidate.id)
    assert 0 < len(stages) < len(found), "the search goes on beside the stages"
    for before, after in pairwise(stages):
        assert after.candidate.weights_from == before.network
    assert all(stage.network for stage in stages)
    timed = [m.evaluation.candidate for m in ports.messages if isinstance(m, Evaluated)]
    finalists = {candidate.parents[0] for candidate in timed if candidate.fidelity == "F5"}
    assert finalists & {evaluation.candidate.id for evaluation in found}
