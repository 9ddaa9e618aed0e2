"""The smaller parts: plans, accuracy, evaluators, neighbours, reports, plots and the clean process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing
from compress.graph.module import TorchNetwork
from compress.network import Network
from compress.scheme import Scheme
from compress.task import Targets
from compress.tasks.classification import TASK
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.metrics import METRICS, latency_metric
from search.problem import Constraint, Objective
from search.synthetic.replay import make_replay
from workers.errors import Diverged, InvalidInput, JobFailed
from workers.evaluating.evaluate_safely import attempt
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import QUICK, CutEvaluator, EvaluatorFactory
from workers.evaluating.images import BATCH, Preprocessed
from workers.evaluating.scores import scores_in_file, scores_in_torch
from workers.judging.smaller_neighbour import smaller_neighbour
from workers.judging.timed import Timed
from workers.phases.search import level
from workers.plan import Budget, DatasetInput, JobPlan, ModelInput, Named, Target
from workers.ports import Outcome
from workers.progress import Evaluated, Phased
from workers.reporting import clean_script
from workers.reporting.clean_check import clean_check
from workers.reporting.plot import Dot, plot
from workers.reporting.report import html_report
from workers.training.choosing import chosen_finalists

Digits = tuple[np.ndarray, np.ndarray]


def plan(**changes: Any) -> JobPlan:
    whole = JobPlan(
        job_id="job_1",
        name="r20",
        model=ModelInput("a" * 64, "r20", {"mean": [0.5]}),
        dataset=DatasetInput("b" * 64, "cifar", "cifar.parquet"),
        methods=(Named("filter_prune", {"importance": "l1"}),),
        strategies=(Named("greedy"), Named("random")),
        targets=(Target("dev_1", "pi5", max_latency_ms=5.0), Target("dev_2", "local", max_latency_ratio=0.5)),
        limits={"max_accuracy_drop": 0.01, "max_size_bytes": None},
    )
    return replace(whole, **changes)


@pytest.mark.parametrize(
    ("limits", "least"),
    [
        ({"max_accuracy_drop": 0.01, "max_size_bytes": 1e6}, 0.89),
        ({"max_accuracy_drop": 0.01, "min_accuracy": 0.895}, 0.895),
        ({"max_accuracy_drop": 1.0}, 0.0),
        ({"max_accuracy_drop": None, "min_test_accuracy": 0.9, "max_accuracy": 0.8}, None),
    ],
)
def test_the_level_is_the_strictest_least_accuracy(limits: Mapping[str, float | None], least: float | None) -> None:
    found = level(plan(limits=limits), {"accuracy": 0.9, "test_accuracy": 0.9})
    assert found == (None if least is None else pytest.approx(least))


def test_a_plan_survives_json() -> None:
    assert JobPlan.from_json(json.loads(json.dumps(plan().to_json()))) == plan()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"targets": [{"device_id": "d", "device_name": "d"}]}, "targets"),
        ({"targets": [{"device_id": "d", "device_name": "d", "max_latency_ms": -1.0}]}, "max_latency_ms"),
        ({"targets": [{"device_id": "d", "device_name": "d", "max_latency_ms": 1.0, "statistic": "p1"}]}, "statistic"),
        ({"budget": {"evaluations": 0}}, "budget.evaluations"),
        ({"budget": {"evaluation": 5}}, "budget.evaluation"),
        ({"methods": []}, "methods"),
        ({"methods": [{"name": "a"}, {"name": "a"}]}, "methods"),
        ({"training": {"augment": "cutmix"}}, "training.augment"),
        ({"objective_goal": "most"}, "objective.goal"),
        ({"speed": 1}, "plan.speed"),
        ({"model": {"name": "x"}}, "model"),
    ],
)
def test_a_wrong_plan_names_the_field(change: Mapping[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        JobPlan.from_json({**plan().to_json(), **change})
    assert error.value.field == field


def test_messages_and_outcomes_hold_their_own() -> None:
    with pytest.raises(ValueError, match="3 of 2"):
        Phased("train", 3, 2)
    with pytest.raises(ValueError, match="verdict"):
        Outcome("paused", "met", "no")
    with pytest.raises(InvalidInput):
        Budget(wall_s=float("inf"))


# accuracy


def pixels(digits: Digits, count: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits
    return images[:count].transpose(0, 3, 1, 2).astype(np.float32) / 255, labels[:count]


def test_torch_and_the_file_get_the_same_images_right(trained: Network, digits: Digits) -> None:
    images, labels = pixels(digits, 300)
    in_torch = scores_in_torch(TASK, TorchNetwork(trained), images, labels)
    in_file = scores_in_file(TASK, trained.save(), images, labels)
    assert in_torch.mean() > 0.9
    assert (in_torch == in_file).mean() > 0.995


def test_numbers_that_are_not_finite_are_a_divergence(trained: Network, digits: Digits) -> None:
    images, labels = pixels(digits, 10)
    # Finite weights, so that the file loads, whose sums are not.
    huge = np.full(trained.constants["fc.weight"].shape, 3e38, np.float32)
    broken = trained.with_constants({"fc.weight": huge})
    with pytest.raises(Diverged):
        scores_in_torch(TASK, TorchNetwork(broken), images, labels)
    with pytest.raises(Diverged):
        scores_in_file(TASK, broken.save(), images, labels)


def test_a_drop_is_paired_and_has_an_interval() -> None:
    rng = np.random.default_rng(0)
    control = rng.random(2000) < 0.9
    candidate = control & (rng.random(2000) < 0.98)
    lost = TASK.compare(control.astype(float), candidate.astype(float))
    assert lost.mean == pytest.approx(control.mean() - candidate.mean())
    assert lost.low < lost.mean < lost.high
    assert lost.count == 2000
    # Pairing: an unpaired interval of these two would be over three times as wide.
    assert lost.high - lost.low < 0.013
    # Without an image on which they differ a small drop is still possible: about 3.8 in n images.
    same = TASK.compare(control.astype(float), control.astype(float))
    assert same.mean == 0.0
    assert -0.002 < same.low < -0.0018
    assert 0.0018 < same.high < 0.002


# the evaluator


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, trained: Network, digits: Digits) -> Material:
    images, labels = pixels(digits, 900)
    methods: tuple[tuple[str, dict[str, Any]], ...] = (("filter_prune", {}), ("int8_ptq", {}))
    evidence = Scheme.of(methods).gather(trained, images[:128], Targets(TASK, labels[:128]), 0)
    ranking = tuple(part[900:1300] for part in pixels(digits, 1300))
    made = Material(tmp_path_factory.mktemp("material"), methods)
    assert not made.complete
    short = Part(digits[0][:512], digits[1][:512])
    made.write(trained, (ranking[0], ranking[1]), images[:128], evidence, short, Preprocessing())
    assert made.complete
    return made


def candidate(widths: Mapping[str, int], precision: str = "fp32", **more: Any) -> Candidate:
    return Candidate("c", {**widths, "int8_ptq": precision}, **more)


WHOLE = {"conv0": 8, "conv1": 32, "conv2": 32}


def test_f2_of_less_and_less(material: Material) -> None:
    evaluator = EvaluatorFactory(material)()
    accuracy = {}
    for name, widths in {
        "whole": WHOLE,
        "half": {"conv0": 8, "conv1": 16, "conv2": 16},
        "crumbs": {"conv0": 1, "conv1": 4, "conv2": 4},
    }.items():
        evaluation = evaluator(candidate(widths))
        assert evaluation.status is Status.COMPLETED
        accuracy[name] = evaluation.metrics["accuracy"]
    assert accuracy["whole"] > 0.9
    assert accuracy["whole"] > accuracy["half"] > accuracy["crumbs"]
    # Refit and re-estimation keep half a network useful without a step of training.
    assert accuracy["half"] > 0.5


def test_f2_in_int8_is_close_to_fp32(material: Material) -> None:
    evaluator = EvaluatorFactory(material)()
    fp32, int8 = (evaluator(candidate(WHOLE, p)).metrics["accuracy"] for p in ("fp32", "int8"))
    assert int8 == pytest.approx(fp32, abs=0.03)


def test_masks_decide_which_channels_stay(material: Material) -> None:
    evaluator = CutEvaluator(material, 512)
    widths = {**WHOLE, "conv1": 8}
    first, last = (candidate(widths, masks={"conv1": tuple(range(i, i + 8))}) for i in (0, 24))
    weights = [evaluator.cut(each)[0].network.constants["conv1.weight"] for each in (first, last)]
    original = material.network.constants["conv1.weight"]
    assert np.array_equal(weights[0], original[:8])
    assert np.array_equal(weights[1], original[24:])
    with pytest.raises(InvalidInput, match="no block"):
        evaluator.cut(candidate(widths, masks={"conv9": (0,)}))


def test_a_quick_look_sees_fewer_images(material: Material) -> None:
    evaluator = EvaluatorFactory(material, quick_images=10)()
    quick = evaluator(candidate(WHOLE, recipe=QUICK)).metrics["accuracy"]
    assert quick * 10 == pytest.approx(round(quick * 10))


def test_quick_looks_compare_like_with_like(material: Material) -> None:
    evaluator = CutEvaluator(material, 64)
    few = material.reference[:16]
    looked, _ = evaluator.cut(candidate(WHOLE), few)
    renewed = looked.to_network().constants["norm0.mean"]
    assert not np.array_equal(renewed, material.network.constants["norm0.mean"])
    # Nothing before the first norm differs in a network that is cut further on: nor may its statistics.
    cut, _ = evaluator.cut(candidate({**WHOLE, "conv2": 16}), few)
    np.testing.assert_array_equal(cut.to_network().constants["norm0.mean"], renewed)
    ranked, _ = evaluator.cut(candidate(WHOLE))
    np.testing.assert_array_equal(ranked.to_network().constants["norm0.mean"], material.network.constants["norm0.mean"])


def test_a_nan_costs_its_candidate_only(tmp_path: Path, trained: Network, digits: Digits) -> None:
    images, labels = pixels(digits, 64)
    # Finite weights, so that the file loads, whose sums are not.
    huge = np.full(trained.constants["fc.weight"].shape, 3e38, np.float32)
    broken = trained.with_constants({"fc.weight": huge})
    made = Material(tmp_path, (("filter_prune", {"importance": "l1"}),))
    evidence = made.scheme.gather(trained, images, Targets(TASK, labels), 0)
    made.write(broken, (images, labels), images, evidence, Part(digits[0][:64], digits[1][:64]), Preprocessing())
    evaluation = attempt(EvaluatorFactory(made)(), Candidate("c", dict(WHOLE)))
    assert (evaluation.status, evaluation.reason) == (Status.FAILED, "nan")


def test_f3_trains_a_little_on_top_of_f2(material: Material) -> None:
    evaluator = EvaluatorFactory(material)()
    crumbs = {"conv0": 2, "conv1": 4, "conv2": 4}
    f2, f3 = (evaluator(candidate(crumbs, fidelity=fidelity)).metrics["accuracy"] for fidelity in ("F2", "F3"))
    assert f3 > f2 + 0.02


def test_other_fidelities_are_refused(material: Material) -> None:
    evaluation = attempt(EvaluatorFactory(material)(), candidate(WHOLE, fidelity="F5"))
    assert evaluation.status is Status.FAILED
    assert "F2" in evaluation.reason


# finalists and neighbours


SMALL = Constraint("macs", 1.0, "max")


def test_finalists_are_the_best_feasible_each_once() -> None:
    replay = make_replay(0, knobs=4, levels=4)
    rng = np.random.default_rng(0)
    found = []
    for i in range(60):
        evaluation = replay.evaluate(Candidate(f"c{i:02d}", replay.problem.space.sample(rng)))
        found.append(Evaluated("s", evaluation, replay.problem.feasible(evaluation.metrics)))
    twin = replace(found[0].evaluation, candidate=replace(found[0].evaluation.candidate, id="twin"))
    failed = Evaluation(Candidate("failed", replay.problem.space.sample(rng)), Status.FAILED, reason="nan")
    found += [Evaluated("s", twin, found[0].feasible, cached=True), Evaluated("s", failed)]
    chosen = chosen_finalists(found, replay.problem, 3)
    accuracies = [each.evaluation.metrics["accuracy"] for each in chosen]
    assert all(each.feasible for each in chosen)
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] == max(e.evaluation.metrics["accuracy"] for e in found if e.feasible)
    assert len({json.dumps(dict(e.evaluation.candidate.values), sort_keys=True) for e in chosen}) == 3
    infeasible = [each for each in found if not each.feasible]
    (nearest,) = chosen_finalists(infeasible, replay.problem, 3)
    violations = [
        replay.problem.violation(e.evaluation.metrics) for e in infeasible if e.evaluation.status is Status.COMPLETED
    ]
    assert replay.problem.violation(nearest.evaluation.metrics) == min(violations)


def test_a_candidate_that_guesses_is_trained_only_if_all_do() -> None:
    replay = make_replay(0, knobs=4, levels=4)
    problem = replace(replay.problem, chance=0.1, images=500, estimate=lambda values: {}, constraints=(SMALL,))
    rng = np.random.default_rng(0)
    found = [
        Evaluated("s", Evaluation(Candidate(name, problem.space.sample(rng)), Status.COMPLETED, metrics), False)
        for name, metrics in {
            "fastest": {"macs": 1.1, "accuracy": 0.1},
            "slower": {"macs": 1.2, "accuracy": 0.12},
            "uncut": {"macs": 1.4, "accuracy": 0.9},
        }.items()
    ]
    assert [each.evaluation.candidate.id for each in chosen_finalists(found, problem, 3)] == ["uncut"]
    assert [each.evaluation.candidate.id for each in chosen_finalists(found[:2], problem, 3)] == ["fastest"]


def test_of_finalists_with_equal_objectives_the_more_accurate_comes_first() -> None:
    replay = make_replay(0, knobs=4, levels=4)
    problem = replace(replay.problem, objectives=(Objective("macs", "min"),), constraints=())
    rng = np.random.default_rng(0)
    metrics = dict(replay.evaluate(Candidate("c", problem.space.sample(rng))).metrics)
    problem = replace(problem, estimate=lambda values: {})
    sizes = {"worse": (0.5, 1.0), "better": (0.6, 2.0)}
    found = [
        Evaluated("s", Evaluation(Candidate(name, problem.space.sample(rng)), Status.COMPLETED, made), feasible=True)
        for name, (accuracy, stored) in sizes.items()
        if (made := {**metrics, "accuracy": accuracy, "stored_bytes": stored})
    ]
    chosen = chosen_finalists(found, problem, 2)
    assert [each.evaluation.candidate.id for each in chosen] == ["better", "worse"]


def timed(device_id: str, excess: float) -> Timed:
    return Timed(device_id, "quiet", 1.0, 0.9, 1.1, 0.9, 1.0, 1.0, 1.05, 1.0, 1.1, 2.0, 1.0, excess)


def test_a_neighbour_takes_off_what_was_measured_too_much() -> None:
    problem = make_replay(3, knobs=6, levels=8, precision=False).problem
    key = latency_metric("small-cpu")
    values = problem.space.values_of([knob.level_count - 1 for knob in problem.space.levelled])
    smaller = smaller_neighbour(problem, values, [timed("small-cpu", 0.06)])
    assert smaller is not None
    before, after = (float(problem.estimate([v])[key][0]) for v in (values, smaller))
    assert after <= before / 1.06
    assert after > 0.6 * before
    levels = problem.space.levels_of([values, smaller])
    assert (levels[1] <= levels[0]).all()


def test_there_is_no_neighbour_below_the_smallest() -> None:
    problem = make_replay(3, knobs=4, levels=4, precision=False).problem
    values = problem.space.values_of([0] * len(problem.space.knobs))
    assert smaller_neighbour(problem, values, [timed("small-cpu", 0.06)]) is None


# what is handed over


def test_a_clean_process_confirms_the_file(trained: Network, digits: Digits) -> None:
    part = Part(digits[0][:100], digits[1][:100])
    images, labels = Preprocessed(part, Preprocessing()), part.labels
    accuracy = float(scores_in_file(TASK, trained.save(), images, labels).mean())
    found = clean_check(TASK, trained.save(), images, labels, accuracy)
    assert found.score == pytest.approx(accuracy, abs=0.011)
    assert found.difference < 1e-4
    with pytest.raises(JobFailed, match=r"the verdict used 0\.5"):
        clean_check(TASK, trained.save(), images, labels, 0.5)
    with pytest.raises(JobFailed, match="could not run"):
        clean_check(TASK, trained.save()[:100], images, labels, accuracy)


@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        ("raise ValueError('/srv/secret')", JobFailed, r"could not run the file \(exit status 1"),
        ("raise MemoryError", MemoryError, "out of memory"),
        ("import os; os.kill(os.getpid(), 9)", MemoryError, "out of memory"),
    ],
)
def test_a_clean_process_that_ends_is_told_without_its_own_words(
    script: str,
    error: type[Exception],
    says: str,
    trained: Network,
    digits: Digits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "script.py").write_text(script)
    monkeypatch.setattr("workers.reporting.clean_process.SCRIPT", tmp_path / "script.py")
    part = Part(digits[0][:10], digits[1][:10])
    with pytest.raises(error, match=says) as caught:
        clean_check(TASK, trained.save(), Preprocessed(part, Preprocessing()), part.labels, 0.9)
    assert "secret" not in str(caught.value)


def test_a_clean_process_knows_all_of_our_packages_by_name() -> None:
    packages = {folder.parent.name for folder in Path(clean_script.__file__).parents[2].glob("*/__init__.py")}
    assert packages - {"tests", "benchmarks"} == clean_script.OURS


def report(name: str = "r20") -> dict[str, Any]:
    row = {
        "evaluation_id": f"{name}-timed",
        "accuracy": 0.9,
        "test_accuracy": None,
        "latency_ms": {"dev_1": {"predicted": 1.0, "low": 0.9, "high": 1.1, "measured": 1.02, "measured_high": 1.03}},
        "macs": 1000,
        "parameters": 100,
        "size_bytes": 400,
        "nonzeros": 90,
        "stored_bytes": 300,
        "accuracy_interval": {"low": 0.87, "high": 0.92, "n": 500},
    }
    device = {"device": "dev_1", "verdict": "met", "network": {**row, "strategy": name}, "file": f"{name}-pi5.onnx"}
    evaluation = {"id": name, "status": "completed", "metrics": {"accuracy": 0.8, "latency_ms@dev_1": 0.7}}
    layer = {
        "layer": name,
        "group": name,
        "role": "width",
        "before": 32,
        "after": 20,
        "share": 0.5,
        "sensitivity": 0.01,
    }
    finalist = {
        "name": name,
        "candidate": name,
        "strategy": name,
        "layers": [{**layer, "latency_ms": {"dev_1": [0.081, 0.049]}, "reason": f"{name} was cut"}],
        "accuracy": 0.9,
        "drop": {"mean": 0.01, "low": 0.0, "high": 0.02, "count": 100},
        "timed": [
            asdict(timed("dev_1", 0.2)),
        ],
        "met": False,
        "broken": [f"{name} is slow"],
    }
    return {
        "name": name,
        "metric": "accuracy",
        "verdict": "missed",
        "reason": f"because of {name}",
        "warnings": [f"{name} is doubtful"],
        "summaries": {"original": row, "nearest": {**row, "finalists": 3}},
        "targets": [{"device_id": "dev_1", "device_name": name, "limit_ms": 1.0}],
        "devices": [device],
        "finalists": [finalist],
        "untrained": None,
        "evaluations": [evaluation],
        "facts": {"network": name},
    }


def test_the_page_shows_the_numbers_and_loads_nothing() -> None:
    page = html_report(report())
    assert "1.000 ms / 1.020 ms" in page
    assert "90.00 % [87.00%, 92.00%], 500 images<" in page
    assert "90.00 % [87.00%, 92.00%], 500 images, chosen among 3 finalists on these very images<" in page
    assert "r20 is doubtful" in page
    assert "1.000 ms [0.900, 1.100] at 90%" in page
    assert "limit 1.000 ms" in page
    assert "0.081 ms / 0.049 ms" in page
    assert "r20 was cut" in page
    assert "<td>met</td><td>r20</td><td>r20</td>" in page
    assert "<td>r20-pi5.onnx</td>" in page
    assert "<script" not in page
    assert "src=" not in page
    assert "+1.00% [+0.00%, +2.00%], 100" in page


def test_a_page_of_one_device_has_no_table_of_devices() -> None:
    assert "Each device by its own limits" not in html_report({**report(), "devices": []})


def test_names_from_outside_cannot_write_html() -> None:
    page = html_report(report("<script>alert('x')</script>"))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_plot_of_nothing_is_nothing_and_of_one_is_finite() -> None:
    assert plot([], 1.0, METRICS["accuracy"]) == ""
    drawn = plot([Dot(1.0, 0.9, "best", "one")], None, METRICS["accuracy"])
    assert "nan" not in drawn
    assert drawn.count("<circle") == 2


def test_images_of_a_whole_part_are_made_a_batch_at_a_time(trained: Network, digits: Digits) -> None:
    images, labels = pixels(digits, 300)
    read: list[int] = []

    class Watched(np.ndarray[Any, Any]):
        def __getitem__(self, rows: Any) -> Any:
            read.append(rows.stop - rows.start)
            return np.asarray(self)[rows]

    lazy = Preprocessed(Part(digits[0][:300].view(Watched), labels), Preprocessing())
    np.testing.assert_array_equal(
        scores_in_file(TASK, trained.save(), lazy, labels), scores_in_file(TASK, trained.save(), images, labels)
    )
    assert max(read) <= BATCH < 300
    np.testing.assert_allclose(np.concatenate(list(lazy.batches(100))), images, rtol=1e-6)
    np.testing.assert_array_equal(lazy.mirror()[10:20], lazy[10:20][..., ::-1])
    np.testing.assert_array_equal(lazy.mirror().mirror()[10:20], lazy[10:20])
