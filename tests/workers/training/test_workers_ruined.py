"""Training that ruins what it trains: no limit is held against a control that guesses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.network import Network
from compress.scoring.difference import paired
from compress.training.direct import fine_tune as honest
from compress.training.fit import Step
from hw_profiles.host_lock import HostLock
from search.metrics import METRICS
from workers.job import run
from workers.judging.control_behind import said_of_control
from workers.judging.ruined import ruined, said_of_ruined
from workers.phases import verify
from workers.plan import JobPlan
from workers.progress import Evaluated
from workers.running.memory_ports import MemoryPorts
from workers.training.trained import Trained

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def _same(network: Network) -> Network:
    return network


def forgetting(*arguments: Any) -> Iterator[Step]:
    """Training forgets everything."""
    for step in honest(*arguments):
        network = step.network()
        forgetful = network.with_constants({"fc.weight": np.zeros_like(network.constants["fc.weight"])})
        yield replace(step, network=partial(_same, forgetful))


def test_a_control_that_training_ruined_is_the_network_as_it_was(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    outcome = run(plan, ports, lock, train=forgetting)
    original, control = outcome.summaries["original"], outcome.summaries["control"]
    assert original["accuracy"] > 0.9
    assert control["accuracy"] == pytest.approx(original["accuracy"], abs=0.005)
    shown = outcome.summaries["best" if outcome.verdict == "met" else "nearest"]
    assert shown["accuracy_drop"]["mean"] == pytest.approx(control["accuracy"] - shown["accuracy"])
    (warning,) = [text for text in ports.warnings if "ruins the control" in text]
    assert f"{control['accuracy']:.2%} before, on 400 validation images" in warning
    assert warning in json.loads(ports.files["report_json"].read_text())["warnings"]


def test_a_finalist_that_training_ruined_is_judged_as_it_was(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    outcome = run(plan, ports, lock, train=forgetting)
    shown = outcome.summaries["best" if outcome.verdict == "met" else "nearest"]
    assert shown["accuracy"] > 0.2, "all that was trained guesses"
    assert any("The result is this network as it was before" in text for text in ports.warnings)
    after = [each.evaluation.metrics["accuracy"] for each in ports.recorded().evaluations if _is_trained(each)]
    assert after
    assert max(after) < 0.2, "the score after training, not before"
    assert not any("continued a sample" in text for text in ports.warnings)


def _is_trained(each: Evaluated) -> bool:
    return each.evaluation.candidate.fidelity == "F4"


def test_what_training_ruined_has_the_epochs_that_it_had_before(
    job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[Trained]()
    honest_judge = verify.judged

    def noted(context: Any, inputs: Any, profile: Any, control: Trained, finalists: Any, *rest: Any) -> Any:
        seen.extend([control, *finalists])
        return honest_judge(context, inputs, profile, control, finalists, *rest)

    monkeypatch.setattr(verify, "judged", noted)
    run(*job(), lock, train=forgetting)
    assert seen
    assert {each.epochs for each in seen if each.ruined} == {0}


def blurring(*arguments: Any) -> Iterator[Step]:
    """Training makes networks a little worse, but does not ruin them."""
    for step in honest(*arguments):
        network = step.network()
        weight = network.constants["fc.weight"].copy()
        weight[0] = 0.0  # one class of ten is forgotten
        yield replace(step, network=partial(_same, network.with_constants({"fc.weight": weight})))


def test_a_finalist_that_training_made_worse_is_judged_untrained(job: Job, lock: HostLock) -> None:
    plan, ports = job(ratio=0.95)
    outcome = run(plan, ports, lock, train=blurring)
    shown = outcome.summaries["best" if outcome.verdict == "met" else "nearest"]
    trained = {e.evaluation.candidate.id: e.evaluation for e in ports.recorded().evaluations if _is_trained(e)}
    after = trained[shown["evaluation_id"].replace("-timed", "-trained")].metrics["accuracy"]
    assert shown["accuracy"] > after
    assert not any("ruin" in text for text in ports.warnings)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(0.93, 0.11, True), (0.93, 0.5, True), (0.93, 0.6, False), (0.88, 0.957, False), (0.11, 0.05, False)],
)
def test_a_network_is_ruined_that_keeps_less_than_half_beyond_guessing(
    before: float, after: float, expected: bool
) -> None:
    assert ruined(before, after, chance=0.1, count=600) is expected


def test_a_control_that_is_worse_by_chance_or_ruined_has_no_warning_of_that_loss() -> None:
    original = np.ones(100)
    scores = (np.arange(100) < 90).astype(np.float64)
    control = Trained("control", "control", None, {}, Path("control.onnx"), scores, {}, {})
    lost, metric = paired(original, scores), METRICS["accuracy"]
    (said,) = said_of_control(original, control, lost, metric)
    assert "10.00 points below the original: accuracy 90.00% against 100.00%, on 100 validation images" in said
    assert not said_of_control(original, control, replace(lost, low=-0.01), metric)
    assert not said_of_control(original, replace(control, left=0.1, ruined=True), lost, metric)


def test_ruins_are_told_with_numbers() -> None:
    scores = (np.arange(10) < 9).astype(np.float64)
    control = Trained("control", "control", None, {}, Path("control.onnx"), scores, {}, {}, left=0.1, ruined=True)
    (said,) = said_of_ruined(control, control, METRICS["accuracy"])
    assert said.startswith("Training with this recipe ruins the control: accuracy 10.00% after it and 90.00% before")
    sound = replace(control, left=None, ruined=False)
    assert not said_of_ruined(sound, sound, METRICS["accuracy"])
