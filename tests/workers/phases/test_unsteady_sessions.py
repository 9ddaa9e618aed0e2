"""A machine whose speed changes during every verdict's timing: the result carries one warning, not one per session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles.host_lock import HostLock
from hw_profiles.timing.protocol import BurstProtocol, Sample
from workers.job import run
from workers.plan import Budget, JobPlan, Training
from workers.progress import Warned
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]
SLOWDOWN = 1.2


def _slower_in_the_second_half(sample: Sample) -> Sample:
    middle = sample.bursts // 2
    slow = tuple(each if index < middle else SLOWDOWN * each for index, each in enumerate(sample.minima_us))
    return replace(sample, minima_us=slow)


def test_every_attempt_warns_in_the_same_words(job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = MemoryPorts.measure

    def measure(
        ports: MemoryPorts, device_id: str, networks: Mapping[str, Path], protocol: BurstProtocol
    ) -> Mapping[str, Sample]:
        samples = honest(ports, device_id, networks, protocol)
        verdict = any(name.startswith("finalist-") for name in networks)
        return {name: _slower_in_the_second_half(each) if verdict else each for name, each in samples.items()}

    monkeypatch.setattr(MemoryPorts, "measure", measure)
    plan, ports = job(ratio=0.9, budget=Budget(evaluations=4, wall_s=600, finalists=1), training=Training(epochs=0))
    run(plan, ports, lock)
    warned = [m.text for m in ports.messages if isinstance(m, Warned) and "unreliable" in m.text]
    assert warned
    assert len(set(warned)) == 1
    assert "%" not in warned[0], "the figures of each session are in the log"
