"""Every kind of search in one job: cheap proxies and full training runs, one budget, one front."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable

from hw_profiles.host_lock import HostLock
from search.evaluation import Status
from workers.evaluating.scores import scores_in_file
from workers.job import run
from workers.plan import Budget, JobPlan, Named
from workers.progress import Evaluated, Logged, Summarised, Warned
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.running.memory_ports import MemoryPorts

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
    control = next(m.summary for m in ports.messages if isinstance(m, Summarised) and m.slot == "control")
    assert control is not None
    ranked, whole = plan.effort.accuracy_images, control["accuracy_interval"]["n"]
    assert ranked < whole, "the level is of the images that samples are counted on"
    level = _ranked(ports, plan) - 0.1
    assert all(m.feasible == (m.evaluation.metrics["accuracy"] >= level) for m in evaluations)
    assert any(not m.feasible for m in evaluations) or len(evaluations) < 7
    chosen = {m.evaluation.candidate.parents[0] for m in ports.messages if _timed(m)}
    warned = [m.text for m in ports.messages if isinstance(m, Warned)]
    assert any("continued a sample" in text for text in warned), "more epochs than the control's are told"
    told = json.loads(ports.files["report_json"].read_text())["facts"]["training"]
    assert re.search(r"as was the control; finalist-.* had \d+ including its sample's$", told)
    reached = sorted(
        (m.evaluation.metrics["stored_bytes"], m.evaluation.candidate.id) for m in evaluations if m.feasible
    )
    assert reached[0][1] in chosen


def _ranked(ports: MemoryPorts, plan: JobPlan) -> float:
    """The control's accuracy on the ranking images."""
    context = Context(plan, ports, ports.recorded())
    path = context.file("trained-control-onnx")
    assert path is not None
    inputs = Inputs.open(context)
    images, labels = inputs.ranking(plan.effort.accuracy_images)
    return float(scores_in_file(inputs.task, path.read_bytes(), images, labels).mean())


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


def test_a_finalist_whose_sample_is_lost_is_trained_from_the_original(job: Job, lock: HostLock) -> None:
    plan, ports = job(
        targets=(),
        methods=(Named("weight_prune"),),
        strategies=(Named("bisection", {"samples": 1}),),
        objective_metric="nonzeros",
        objective_goal="min",
        limits={"max_accuracy_drop": 0.9},
        budget=Budget(evaluations=1, wall_s=600, finalists=1),
    )
    emit = ports.emit

    def losing(*messages: object) -> None:
        emit(*messages)  # type: ignore[arg-type]  # what it was given
        if any(isinstance(m, Evaluated) and m.evaluation.candidate.searched for m in messages):
            for file in (ports.work_dir / "material" / "networks").iterdir():
                file.unlink()

    ports.emit = losing  # type: ignore[method-assign]
    assert run(plan, ports, lock).verdict == "met"
    assert any("is lost" in m.text for m in ports.messages if isinstance(m, Logged))


def test_where_no_sample_is_within_the_limit_the_uncut_network_may_be(job: Job, lock: HostLock) -> None:
    plan, ports = job(
        targets=(),
        methods=(Named("weight_prune"), Named("fp16")),
        strategies=(Named("bayesian"),),
        objective_metric="stored_bytes",
        objective_goal="min",
        limits={"max_accuracy_drop": 0.1},
        budget=Budget(evaluations=1, wall_s=600, finalists=2),
    )
    outcome = run(plan, ports, lock)
    (sample,) = (m.evaluation for m in ports.messages if isinstance(m, Evaluated) and m.evaluation.candidate.searched)
    assert sample.metrics["accuracy"] < outcome.summaries["control"]["accuracy"] - 0.1, "else the test says nothing"
    assert outcome.verdict == "met"
    best = outcome.summaries["best"]
    assert (best["values"], best["strategy"]) == ({"weight_prune": 1.0, "fp16": "fp16"}, "corner")
    assert best["stored_bytes"] < 0.7 * outcome.summaries["original"]["stored_bytes"]


def test_where_no_sample_comes_to_an_end_the_network_stays_as_it_is(job: Job, lock: HostLock) -> None:
    plan, ports = job(
        targets=(),
        limits={},
        methods=(Named("weight_prune"),),
        strategies=(Named("bayesian"),),
        budget=Budget(evaluations=4, wall_s=1e-3, finalists=1),
    )
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    best = outcome.summaries["best"]
    assert best["nonzeros"] == best["parameters"]
    warned = [m.text for m in ports.messages if isinstance(m, Warned)]
    assert any("no evaluation; the unchanged network is judged instead" in text for text in warned)
    assert any("neither smaller nor faster" in text for text in warned)


def test_under_the_floor_the_smallest_is_the_nearest_densities_included(job: Job, lock: HostLock) -> None:
    plan, ports = job(
        ratio=1e-6, methods=(Named("filter_prune"), Named("weight_prune")), strategies=(Named("bayesian"),)
    )
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "missed")
    assert outcome.summaries["nearest"]["values"]["weight_prune"] < 0.01


def test_an_objective_that_nothing_improves_is_told(job: Job, lock: HostLock) -> None:
    plan, ports = job(
        targets=(),
        limits={"max_accuracy_drop": 1e-9, "min_accuracy": 1.0},
        methods=(Named("weight_prune", {"min_density": 0.99}),),
        strategies=(Named("bisection", {"samples": 1}),),
        objective_metric="macs",
        objective_goal="min",
        budget=Budget(evaluations=1, wall_s=600, finalists=1),
    )
    run(plan, ports, lock)
    assert any("no better than the original's" in m.text for m in ports.messages if isinstance(m, Warned))
