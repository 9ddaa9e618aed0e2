"""Candidates are timed as whole networks before training: what turns out too slow is replaced, not trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import onnx
import pytest

from hw_profiles.host_lock import HostLock
from hw_profiles.timing.protocol import BurstProtocol, Sample
from workers.job import run
from workers.phases import trial
from workers.plan import Budget, JobPlan, Named, Training
from workers.progress import Evaluated, Logged
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def shapes(network: Path) -> list[tuple[int, ...]]:
    """The shapes of the constants, which tell the candidates of a small job apart."""
    return sorted(tuple(each.dims) for each in onnx.load(network).graph.initializer)


@dataclass
class Sessions:
    """The names timed in each session. The device takes 1.4 times as long as its table says for the network that would
    be trained first.
    """

    names: list[set[str]] = field(default_factory=list)
    slow: list[tuple[int, ...]] | None = None

    def samples(self, networks: Mapping[str, Path], honest: Mapping[str, Sample]) -> Mapping[str, Sample]:
        self.names.append(set(networks))
        first = next((name for name in networks if name.startswith("candidate-")), None)
        if self.slow is None and first is not None:
            self.slow = shapes(networks[first])
        return {name: slower(each) if shapes(networks[name]) == self.slow else each for name, each in honest.items()}


def slower(sample: Sample, times: float = 1.4) -> Sample:
    minima, medians = (tuple(times * each for each in values) for values in (sample.minima_us, sample.medians_us))
    return replace(sample, minima_us=minima, medians_us=medians)


class Sampled(Protocol):
    """Changes the samples of a session."""

    def samples(self, networks: Mapping[str, Path], honest: Mapping[str, Sample]) -> Mapping[str, Sample]: ...


TimedBy = Callable[[Sampled], None]


@pytest.fixture
def timed_by(monkeypatch: pytest.MonkeyPatch) -> TimedBy:
    honest = MemoryPorts.measure

    def use(device: Sampled) -> None:
        def measure(
            ports: MemoryPorts, device_id: str, networks: Mapping[str, Path], protocol: BurstProtocol
        ) -> Mapping[str, Sample]:
            return device.samples(networks, honest(ports, device_id, networks, protocol))

        monkeypatch.setattr(MemoryPorts, "measure", measure)

    return use


@pytest.fixture
def sessions(timed_by: TimedBy) -> Sessions:
    seen = Sessions()
    timed_by(seen)
    return seen


SMALL = Budget(evaluations=4, wall_s=600, finalists=1)


def test_a_candidate_that_the_device_finds_too_slow_is_not_trained(
    job: Job, lock: HostLock, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "SPARE", 0)  # so that the replacement needs a round of its own
    plan, ports = job(budget=SMALL, training=Training(epochs=0))
    outcome = run(plan, ports, lock)
    evaluations = [m for m in ports.messages if isinstance(m, Evaluated)]
    searched = [each for each in evaluations if each.evaluation.candidate.fidelity == "F2" and each.feasible]
    best = max(searched, key=lambda each: each.evaluation.metrics["accuracy"]).evaluation.candidate
    trained = [each.evaluation.candidate for each in evaluations if each.evaluation.candidate.fidelity == "F4"]
    assert trained
    assert best.values not in [each.values for each in trained]
    assert outcome.verdict == "met"
    rounds = [names for names in sessions.names if any(name.startswith("candidate-") for name in names)]
    assert 2 <= len(rounds) <= trial.ROUNDS
    assert not rounds[0] & rounds[1] - {"uploaded"}, "each candidate has a name of its own"
    told = [m.text for m in ports.messages if isinstance(m, Logged) and "before training" in m.text]
    assert len(told) == 1
    assert "were off by -" in told[0]


def test_a_restart_does_not_time_the_candidates_again(job: Job, lock: HostLock, sessions: Sessions) -> None:
    plan, ports = job(budget=SMALL, training=Training(epochs=0))
    first = run(plan, ports, lock)
    timed = len(sessions.names)
    again = run(plan, ports, lock)
    assert len(sessions.names) == timed
    assert first.summaries["best"] == again.summaries["best"]


@dataclass
class Slow:
    """A device that takes `times` as long as its table says for every candidate, also once it is a finalist."""

    times: float = 1.1
    shapes: list[list[tuple[int, ...]]] = field(default_factory=list)

    def samples(self, networks: Mapping[str, Path], honest: Mapping[str, Sample]) -> Mapping[str, Sample]:
        self.shapes += [shapes(path) for name, path in networks.items() if name.startswith("candidate-")]
        return {
            name: slower(each, self.times) if shapes(networks[name]) in self.shapes else each
            for name, each in honest.items()
        }


def test_a_search_that_was_misled_goes_on_with_corrected_predictions(
    job: Job, lock: HostLock, timed_by: TimedBy
) -> None:
    timed_by(Slow())
    plan, ports = job(
        ratio=0.95,
        budget=Budget(evaluations=60, wall_s=600, finalists=1),
        strategies=(Named("greedy"),),
        training=Training(epochs=0),
    )
    outcome = run(plan, ports, lock)
    told = [m.text for m in ports.messages if isinstance(m, Logged)]
    (turn,) = (index for index, text in enumerate(told) if "the search goes on with corrected predictions" in text)
    before, after = (text for text in told if "before training" in text)
    assert "; 0 are within the limits" in before
    assert "; 0 are within the limits" not in after
    assert told.index(before) < turn < told.index(after)
    assert outcome.verdict == "met"
    searched = _searched(ports)
    assert sum(not each.cached for each in searched) <= 60
    again = run(plan, ports, lock)
    assert (again.verdict, again.summaries["best"]) == (outcome.verdict, outcome.summaries["best"])
    assert _searched(ports) == searched, "an ended search is not continued"


def test_a_search_that_has_used_up_its_evaluations_does_not_go_on(job: Job, lock: HostLock, timed_by: TimedBy) -> None:
    timed_by(Slow(times=1.4))
    plan, ports = job(budget=SMALL, training=Training(epochs=0))
    outcome = run(plan, ports, lock)
    told = [m.text for m in ports.messages if isinstance(m, Logged)]
    assert any("all 4 evaluations are used up" in text for text in told)
    assert not any("the search goes on" in text for text in told)
    assert sum("before training" in text for text in told) == 1
    assert outcome.verdict == "missed"


def _searched(ports: MemoryPorts) -> list[Evaluated]:
    return [each for each in ports.messages if isinstance(each, Evaluated) and each.evaluation.candidate.searched]
