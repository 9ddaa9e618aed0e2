"""A whole job on a tiny network and a simulated device, and what is left of it after it died somewhere."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
import pytest

from compress.errors import TrainingDiverged
from compress.graph.edit import edited
from compress.graph.fold import fold_norms
from compress.importing.normalise import load_network
from compress.network import Network, Node
from compress.pruning.effective_weights import layer_weights
from compress.training.direct import fine_tune as honest
from hw_profiles.host_lock import HostLock
from search.evaluation import Status
from search.problem import Problem
from search.space import Choice
from workers.errors import JobFailed
from workers.job import run
from workers.phases.search import problem_of
from workers.plan import Budget, JobPlan, ModelInput, Named, Training
from workers.ports import Signal
from workers.progress import PHASES, Asked, Checkpointed, Evaluated, Logged, Message, Phased, Warned
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def evaluated(ports: MemoryPorts, fidelity: str) -> list[Evaluated]:
    found = [m for m in ports.messages if isinstance(m, Evaluated)]
    return [m for m in found if m.evaluation.candidate.fidelity == fidelity]


def test_a_limit_that_can_be_met_is_met(job: Job, lock: HostLock) -> None:
    plan, ports = job(known=False)
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    assert ports.phases == list(PHASES)
    best, original = outcome.summaries["best"], outcome.summaries["original"]
    row = best["latency_ms"]["dev_1"]
    assert row["measured"] <= row["measured_high"]
    assert row["measured"] <= 0.85 * original["latency_ms"]["dev_1"]["measured"] * 1.06  # sessions drift by 2.5 %
    assert row["low"] < row["predicted"] < row["high"]
    assert row["predicted"] == pytest.approx(row["measured"], rel=0.08)
    assert best["macs"] < original["macs"]
    assert best["size_bytes"] < original["size_bytes"]
    assert 0.5 < best["test_accuracy"] <= 1
    assert original["test_accuracy"] is not None
    assert len(evaluated(ports, "F2")) == 4
    assert len(evaluated(ports, "F4")) == 2
    timed = {e.evaluation.candidate.id: e for e in evaluated(ports, "F5")}
    assert timed[best["evaluation_id"]].feasible
    assert timed[best["evaluation_id"]].evaluation.metrics["latency_ms@dev_1"] == row["measured"]


def test_what_is_handed_over_is_the_file_that_was_judged(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    outcome = run(plan, ports, lock)
    files = ports.files
    assert set(files) == {"onnx", "report_json", "report_html", "manifest"}
    manifest = json.loads(files["manifest"].read_text())
    assert manifest["inputs"] == {"model": plan.model.sha256, "dataset": plan.dataset.sha256}
    assert manifest["seed"] == plan.seed
    assert manifest["versions"]["onnxruntime"] == onnxruntime.__version__
    for name in ("tiny.onnx", "report.json", "report.html"):
        path = files["manifest"].with_name(name)
        assert manifest["files"][name] == hashlib.sha256(path.read_bytes()).hexdigest()
    network = load_network(files["onnx"])
    original = load_network(ports.path(plan.model.sha256))
    assert (network.input_name, network.output_name) == (original.input_name, original.output_name)
    report = json.loads(files["report_json"].read_text())
    assert report["verdict"] == "met"
    assert report["recheck"]["accuracy"] == outcome.summaries["best"]["accuracy"]
    assert len(report["evaluations"]) == 4
    page = files["report_html"].read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http-equiv", "")
    assert len(page) < 100_000


def test_the_same_job_started_again_repeats_nothing(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    first = run(plan, ports, lock)
    measured, count = len(ports.measured), len(evaluated(ports, "F2"))
    checkpoints = sum(isinstance(m, Checkpointed) for m in ports.messages)
    again = run(plan, ports, lock)
    assert again.verdict == first.verdict
    assert again.summaries["best"] == first.summaries["best"]
    assert len(ports.measured) == measured
    assert len(evaluated(ports, "F2")) == count
    assert len(evaluated(ports, "F4")) == 2
    assert sum(isinstance(m, Checkpointed) for m in ports.messages) == checkpoints


def test_a_job_on_what_passes_no_gradient_ends_and_says_what_it_did(job: Job, lock: HostLock, trained: Network) -> None:
    plan, ports = job(known=False)
    # Behind a Relu a Celu changes nothing, and it has no row.
    wall = Node("Celu", "wall", ("r1",), ("walled",))
    nodes = [replace(n, inputs=tuple("walled" if name == "r1" else name for name in n.inputs)) for n in trained.nodes]
    walled = edited(trained, [*nodes, wall], trained.constants)
    outcome = run(replace(plan, model=ModelInput(ports.put_bytes(walled.save()), "walled")), ports, lock)
    assert outcome.end == "finished"
    warned = [message.text for message in ports.messages if isinstance(message, Warned)]
    (ranked,) = [text for text in warned if "importance fisher" in text]
    assert "conv0 (no gradient passes through wall)" in ranked
    (left,) = [text for text in warned if "training leaves" in text]
    assert "conv0" in left
    assert "conv2" not in left


def reached(messages: Sequence[Message]) -> list[tuple[int, float]]:
    return [(PHASES.index(m.phase), m.done / m.total) for m in messages if isinstance(m, Phased)]


def test_progress_grows_and_no_rest_is_told_where_none_is_known(job: Job, lock: HostLock) -> None:
    plan, ports = job(known=False)
    run(plan, ports, lock)
    steps = reached(ports.messages)
    assert steps == sorted(steps)
    assert len({share for phase, share in steps if phase == 0}) > 4  # the probes and the rows, each in its own part
    told = [m for m in ports.messages if isinstance(m, Phased) and m.eta_s is not None]
    assert {m.phase for m in told} == {"profile", "search", "train"}
    assert [m for m in told if m.done >= m.total or not m.eta_s] == []


def test_strategies_are_told_what_layers_lose(job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Problem] = []

    def noted(*given: Any) -> Problem:
        seen.append(problem_of(*given))
        return seen[-1]

    monkeypatch.setattr("workers.phases.search.problem_of", noted)
    plan, ports = job(methods=(Named("filter_prune"), Named("int8_ptq")))
    run(plan, ports, lock)
    problem = seen[0]
    errors = problem.statistics["ls_error"]
    widths = [knob for knob in problem.space.levelled if isinstance(knob, Choice) and knob.ordered]
    assert errors.keys() == {knob.name for knob in widths}
    for knob in widths:
        assert errors[knob.name].shape == (knob.level_count,)
        assert (np.diff(errors[knob.name]) <= 0).all()
        assert errors[knob.name][0] > errors[knob.name][-1] == 0.0


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def kill_at(wanted: Callable[[Message], bool], count: int) -> Callable[[Message], None]:
    seen = Counter[str]()

    def observe(message: Message) -> None:
        seen["wanted"] += wanted(message)
        if wanted(message) and seen["wanted"] == count:
            raise Killed

    return observe


KILLS: dict[str, Callable[[Message], None]] = {
    "between ask and evaluation": kill_at(lambda m: isinstance(m, Evaluated), 2),
    "before an ask is stored": kill_at(lambda m: isinstance(m, Asked), 3),
    "in the statistics": kill_at(lambda m: isinstance(m, Phased) and m.phase == "statistics", 4),
    "in training": kill_at(lambda m: isinstance(m, Checkpointed) and m.name.startswith("trained-finalist"), 1),
    "in verification": kill_at(lambda m: isinstance(m, Checkpointed) and m.name.startswith("verify"), 1),
    "in packaging": kill_at(lambda m: isinstance(m, Phased) and m.phase == "package", 2),
}


@pytest.mark.parametrize("where", KILLS)
def test_a_job_that_dies_anywhere_goes_on_and_ends_alike(where: str, job: Job, lock: HostLock) -> None:
    plan, ports = job()
    ports.observe = KILLS[where]
    with pytest.raises(Killed):
        run(plan, ports, lock)
    ports.observe = lambda message: None
    before = [e.evaluation.candidate.id for e in evaluated(ports, "F2")]
    outcome = run(plan, ports, lock)
    assert outcome.verdict == "met"
    after = [e.evaluation.candidate.id for e in evaluated(ports, "F2")]
    assert after[: len(before)] == before
    assert len(after) == len(set(after)) == 4
    assert len({e.evaluation.candidate.id for e in evaluated(ports, "F4")}) == len(evaluated(ports, "F4")) == 2


def test_an_accuracy_that_cannot_be_kept_is_missed_with_the_nearest(job: Job, lock: HostLock) -> None:
    plan, ports = job(limits={"min_accuracy": 1.0})
    outcome = run(plan, ports, lock)
    assert outcome.verdict == "missed"
    assert "min_accuracy" in outcome.reason
    assert "best" not in outcome.summaries
    nearest = outcome.summaries["nearest"]
    assert 0 < nearest["accuracy"] < 1
    assert nearest["latency_ms"]["dev_1"]["measured"] > 0
    assert json.loads(ports.files["report_json"].read_text())["verdict"] == "missed"


def test_a_limit_under_the_floor_ends_before_any_search(job: Job, lock: HostLock) -> None:
    plan, ports = job(ratio=0.05)
    outcome = run(plan, ports, lock)
    assert outcome.verdict == "missed"
    assert "smallest network" in outcome.reason
    assert ports.phases == ["profile", "package"]
    assert not evaluated(ports, "F2")
    floor = outcome.summaries["nearest"]["latency_ms"]["dev_1"]["measured"]
    assert floor > 0.05 * outcome.summaries["original"]["latency_ms"]["dev_1"]["measured"]
    assert set(ports.files) == {"report_json", "report_html", "manifest"}
    assert json.loads(ports.files["report_json"].read_text())["facts"]["training"] == "none"


def test_int8_and_pruning_in_one_scheme(job: Job, lock: HostLock) -> None:
    both = (Named("filter_prune"), Named("int8_ptq"))
    limits = {"max_size_ratio": 0.25, "max_accuracy_drop": 0.5}
    plan, ports = job(ratio=3.0, methods=both, strategies=(Named("greedy"),), limits=limits)
    outcome = run(plan, ports, lock)
    assert outcome.verdict == "met"
    best, original = outcome.summaries["best"], outcome.summaries["original"]
    assert best["values"]["int8_ptq"] == "int8"
    assert best["size_bytes"] <= 0.25 * original["size_bytes"]
    assert best["latency_ms"]["dev_1"]["predicted"] == pytest.approx(best["latency_ms"]["dev_1"]["measured"], rel=0.08)
    network = load_network(ports.files["onnx"])
    assert any(node.op_type == "QuantizeLinear" for node in network.nodes)


def test_a_job_without_targets_keeps_its_other_limits(job: Job, lock: HostLock) -> None:
    plan, ports = job(targets=(), limits={"max_macs_ratio": 0.5, "max_accuracy_drop": 0.5})
    outcome = run(plan, ports, lock)
    assert outcome.verdict == "met"
    assert outcome.summaries["best"]["macs"] <= 0.5 * outcome.summaries["original"]["macs"]
    assert ports.measured == []


def test_a_finalist_is_trained_as_sparse_as_it_will_be(job: Job, lock: HostLock) -> None:
    methods = (Named("filter_prune"), Named("weight_prune", {"min_density": 0.1}), Named("fp16"))
    plan, ports = job(targets=(), methods=methods, limits={"max_macs_ratio": 0.9, "max_accuracy_drop": 0.6})
    run(plan, ports, lock)
    best = load_network(ports.files["onnx"])  # loading folds what widens the weights
    weights = [best.constants[name] for name in layer_weights(best)]
    share = sum(np.count_nonzero(weight) for weight in weights) / sum(weight.size for weight in weights)
    densities = [each.evaluation.candidate.values["weight_prune"] for each in evaluated(ports, "F4")]
    assert share in [pytest.approx(density, abs=0.01) for density in densities]


def test_a_job_in_child_processes(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    plan = replace(plan, effort=replace(plan.effort, processes=1))
    assert run(plan, ports, lock).verdict == "met"


@pytest.mark.parametrize(("wanted", "end"), [("pause", "paused"), ("cancel", "cancelled")])
def test_the_user_can_stop_a_job_and_go_on_with_a_paused_one(
    wanted: Signal, end: str, job: Job, lock: HostLock
) -> None:
    plan, ports = job()

    def signals() -> Signal:
        return wanted if len(evaluated(ports, "F2")) == 2 else "continue"

    ports.signals = signals
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == (end, None)
    assert "train" not in ports.phases
    ports.signals = lambda: "continue"
    assert run(plan, ports, lock).verdict == "met"
    assert len(evaluated(ports, "F2")) == 4


def test_one_diverging_finalist_fails_alone(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    calls = Counter[str]()

    def fit(*arguments: Any) -> Any:
        calls["fit"] += 1
        if calls["fit"] == 2:  # the control comes first
            raise TrainingDiverged(0, 3, float("nan"))
        return honest(*arguments)

    assert run(plan, ports, lock, train=fit).verdict == "met"
    trained = [e.evaluation for e in evaluated(ports, "F4")]
    assert sorted(e.status for e in trained) == [Status.COMPLETED, Status.FAILED]
    assert [e.reason for e in trained if e.status is Status.FAILED] == ["nan"]


def _same(network: Network) -> Network:
    return network


def test_given_back_batch_norms_are_taken_away_where_they_hurt(job: Job, lock: HostLock, trained: Network) -> None:
    """The uploaded file has its norms folded in; training with given-back ones is made to fail."""
    plan, ports = job()
    folded = ports.put_bytes(fold_norms(trained).save())
    plan = replace(plan, model=replace(plan.model, sha256=folded), training=Training(1, "none"))

    def fit(network: Network, *arguments: Any) -> Any:
        for step in honest(network, *arguments):
            if any(node.op_type == "BatchNormalization" for node in network.nodes):
                forgetful = step.network().with_constants({"fc.weight": np.zeros((10, 32), np.float32)})
                step = replace(step, network=partial(_same, forgetful))
            yield step

    outcome = run(plan, ports, lock, train=fit)
    assert outcome.verdict == "met"
    assert outcome.summaries["control"]["accuracy"] > 0.8
    assert any("they are removed" in line for line in ports.lines)


def test_a_diverging_control_fails_the_job(job: Job, lock: HostLock) -> None:
    plan, ports = job()

    def fit(*arguments: Any) -> Any:
        raise TrainingDiverged(0, 3, float("nan"))

    with pytest.raises(JobFailed) as failure:
        run(plan, ports, lock, train=fit)
    assert (failure.value.code, failure.value.step) == ("control_diverged", "train")


def test_nothing_to_change_is_a_clear_failure(job: Job, lock: HostLock) -> None:
    everything = {"keep_float": ["conv0", "conv1", "conv2", "fc"]}
    plan, ports = job(methods=(Named("int8_ptq", everything),))
    with pytest.raises(JobFailed) as failure:
        run(plan, ports, lock)
    assert (failure.value.code, failure.value.field) == ("nothing_to_change", "methods")


def test_time_used_up_still_ends_with_a_trained_file(job: Job, lock: HostLock) -> None:
    plan, ports = job(budget=Budget(evaluations=4, wall_s=1e-3, finalists=2), training=Training(1, "none"))
    outcome = run(plan, ports, lock)
    assert outcome.verdict is not None
    assert len(evaluated(ports, "F4")) == 1
    assert "onnx" in ports.files
    (said,) = (m.text for m in ports.messages if isinstance(m, Warned) and m.text.startswith("The search ended"))
    done = sum(each.evaluation.candidate.searched for each in evaluated(ports, "F2"))
    assert said == f"The search ended after {done} of 4 evaluations: 60% of 0.001 wall seconds were used up."
    assert said in json.loads(ports.files["report_json"].read_text())["warnings"]


def test_lines_are_for_people(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    run(plan, ports, lock)
    lines = [m for m in ports.messages if isinstance(m, Logged)]
    assert len(lines) > 8
    assert all(line.text.endswith((".", ";", ":")) and "\n" not in line.text for line in lines)
    spent = [m.spent_s for m in ports.messages if isinstance(m, Phased)]
    assert np.all(np.diff(spent) >= 0)
