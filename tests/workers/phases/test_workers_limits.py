"""A limit in milliseconds from the plan to the verdict, on a machine that others work on while tables are made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.network import Network
from compress.training.direct import fine_tune
from compress.training.fit import Step
from hw_profiles.host_lock import HostLock
from hw_profiles.timing.protocol import BurstProtocol, Sample, Statistic
from workers.job import run
from workers.phases import trial
from workers.plan import JobPlan, Target
from workers.progress import Evaluated
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def original_ms(ports: MemoryPorts, plan: JobPlan) -> float:
    """What the uploaded network takes on the undisturbed device."""
    return float(ports.runtime.truth_us(ports.path(plan.model.sha256).read_bytes())) / 1e3  # type: ignore[attr-defined]


def disturbed(monkeypatch: pytest.MonkeyPatch, share: float, slow: float = 3.0) -> None:
    """Others work during this share of each session but those of the verdict."""
    honest = MemoryPorts.measure

    def measure(
        ports: MemoryPorts, device_id: str, networks: Mapping[str, Path], protocol: BurstProtocol
    ) -> Mapping[str, Sample]:
        samples = honest(ports, device_id, networks, protocol)
        if "control" in networks:
            return samples
        rng = np.random.default_rng(len(networks))
        return {name: _disturbed(sample, rng, share, slow) for name, sample in samples.items()}

    monkeypatch.setattr(MemoryPorts, "measure", measure)


def _disturbed(sample: Sample, rng: np.random.Generator, share: float, slow: float) -> Sample:
    factors = np.where(rng.permutation(sample.bursts) < share * sample.bursts, slow, 1.0)
    minima, medians = (tuple((factors * values).tolist()) for values in (sample.minima_us, sample.medians_us))
    return Sample(sample.key, minima, medians, sample.extra)


@pytest.mark.parametrize(("statistic", "share"), [("p50", 0.6), ("p50", 0.85), ("p95", 0.85)])
def test_the_work_of_others_makes_no_limit_in_ms_stricter(
    statistic: Statistic, share: float, job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ports = job()
    limit_ms = 0.95 * original_ms(ports, plan)
    target = Target("dev_1", ports.devices["dev_1"].name, max_latency_ms=limit_ms, statistic=statistic)
    plan, ports = job(targets=(target,))
    ports.runtime.contention = 1.0  # type: ignore[attr-defined]  # the simulated one: only this test disturbs it
    disturbed(monkeypatch, share)
    outcome = run(plan, ports, lock)
    searched = [m for m in ports.messages if isinstance(m, Evaluated) and m.evaluation.candidate.searched]
    assert len(searched) == plan.budget.evaluations
    assert outcome.verdict == "met", outcome.reason
    (shown,) = json.loads(ports.files["report_json"].read_text())["targets"]
    assert shown["limit_ms"] == pytest.approx(limit_ms)


def test_predictions_speak_of_the_statistic_of_the_limit(
    job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "ROUNDS", 0)  # timings before training would correct the search's predictions
    plan, ports = job()
    target = Target("dev_1", ports.devices["dev_1"].name, max_latency_ratio=0.9, statistic="p50")
    plan, ports = job(targets=(target,))
    run(plan, ports, lock)
    report = json.loads(ports.files["report_json"].read_text())
    said = {e["id"]: e["metrics"]["latency_ms@dev_1"] for e in report["evaluations"]}
    for each in report["finalists"]:
        (timed,) = each["timed"]
        assert timed["predicted_ms"] == pytest.approx(said[each["name"].removeprefix("finalist-")], rel=1e-6)


def test_nothing_is_trained_for_limits_that_nothing_comes_near(job: Job, lock: HostLock) -> None:
    plan, ports = job(targets=(), limits={"max_size_ratio": 1e-4, "max_accuracy_drop": 0.02})
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "missed")
    assert "Nothing was trained" in outcome.reason
    assert "train" not in ports.phases
    assert "control" not in outcome.summaries
    nearest, original = outcome.summaries["nearest"], outcome.summaries["original"]
    assert nearest["accuracy"] > 0.5 * original["accuracy"]
    again = run(plan, ports, lock)
    assert again.summaries == outcome.summaries


def parameters(network: Network) -> int:
    return sum(constant.size for constant in network.constants.values())


def _same(network: Network) -> Network:
    return network


def test_finalists_that_training_makes_guess_stay_as_they_were(job: Job, lock: HostLock, trained: Network) -> None:
    """Training makes every finalist forget all it knew, so none of them is judged as a network that guesses."""

    def forgetful(network: Network, *arguments: Any) -> Iterator[Step]:
        for step in fine_tune(network, *arguments):
            if parameters(network) < parameters(trained):
                known = step.network()
                forgotten = known.with_constants({"fc.weight": 0 * known.constants["fc.weight"]})
                step = replace(step, network=partial(_same, forgotten))
            yield step

    plan, ports = job(ratio=0.85, limits={"max_macs_ratio": 0.85, "max_accuracy_drop": 0.02})
    outcome = run(plan, ports, lock, train=forgetful)
    assert outcome.verdict == "missed"
    report = json.loads(ports.files["report_json"].read_text())
    tried = {each["name"]: each["accuracy"] for each in report["finalists"]}
    assert min(tried.values()) > 0.8
    nearest = outcome.summaries["nearest"]
    assert nearest["accuracy"] > 0.8
    assert nearest["latency_ms"]["dev_1"]["measured"] > 0
    assert any("ruins" in warning for warning in report["warnings"])
