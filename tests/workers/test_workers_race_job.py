"""Every kind of search in one job: cheap proxies and whole trainings, one budget, one front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hw_profiles.host_lock import HostLock
from search.evaluation import Status
from workers.job import run
from workers.memory_ports import MemoryPorts
from workers.plan import Budget, JobPlan, Named
from workers.progress import Evaluated

Job = Callable[..., tuple[JobPlan, MemoryPorts]]
STRATEGIES = ("uniform", "greedy", "bayesian", "tpe", "nsga2")


def test_five_strategies_share_a_job(job: Job, lock: HostLock) -> None:
    settings = {"bayesian": {"samples": 2}, "tpe": {"startup": 1}, "nsga2": {"population": 2}}
    plan, ports = job(
        ratio=0.85,
        methods=(Named("filter_prune"), Named("int8_ptq")),
        strategies=tuple(Named(name, settings.get(name, {})) for name in STRATEGIES),
        budget=Budget(evaluations=11, wall_s=600, finalists=2),
    )
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    found = [m for m in ports.messages if isinstance(m, Evaluated) and m.strategy in STRATEGIES]
    assert all(m.evaluation.status is Status.COMPLETED for m in found)
    assert set(Counter(m.strategy for m in found)) == set(STRATEGIES)
    samples = [m.evaluation.candidate for m in found if m.strategy == "bayesian" and m.evaluation.candidate.searched]
    assert {(sample.fidelity, sample.recipe) for sample in samples} == {("F4", "direct")}


def test_a_file_as_small_as_the_accuracy_limit_lets_it_be(job: Job, lock: HostLock) -> None:
    plan, ports = job(
        targets=(),
        methods=(Named("weight_prune"), Named("fp16")),
        strategies=(Named("bayesian", {"samples": 4}), Named("bisection", {"samples": 3})),
        objective_metric="stored_bytes",
        objective_goal="min",
        limits={"max_accuracy_drop": 0.1},
        budget=Budget(evaluations=7, wall_s=600, finalists=2),
    )
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    best, original = outcome.summaries["best"], outcome.summaries["original"]
    assert best["stored_bytes"] < 0.3 * original["stored_bytes"]
    assert best["nonzeros"] < 0.5 * original["nonzeros"] == 0.5 * original["parameters"]
    assert best["size_bytes"] < original["size_bytes"]
    evaluations = [m for m in ports.messages if isinstance(m, Evaluated) and m.evaluation.candidate.searched]
    level = original["accuracy"] - 0.1
    assert all(m.feasible == (m.evaluation.metrics["accuracy"] >= level) for m in evaluations)
    assert any(not m.feasible for m in evaluations) or len(evaluations) < 7
    chosen = {m.evaluation.candidate.parents[0] for m in ports.messages if _timed(m)}
    reached = sorted(
        (m.evaluation.metrics["stored_bytes"], m.evaluation.candidate.id) for m in evaluations if m.feasible
    )
    assert reached[0][1] in chosen


def _timed(message: object) -> bool:
    return isinstance(message, Evaluated) and message.evaluation.candidate.fidelity == "F5"


def test_a_search_of_whole_trainings_alone_has_finalists(job: Job, lock: HostLock) -> None:
    plan, ports = job(
        ratio=0.85, strategies=(Named("bayesian", {"samples": 2}),), budget=Budget(evaluations=4, finalists=1)
    )
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    sampled = {
        m.evaluation.candidate.id for m in ports.messages if isinstance(m, Evaluated) and m.strategy == "bayesian"
    }
    trained = [m for m in ports.messages if isinstance(m, Evaluated) and m.evaluation.candidate.fidelity == "F5"]
    assert [m.evaluation.candidate.parents[0] in sampled for m in trained] == [True]
