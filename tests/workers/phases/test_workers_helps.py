"""Preparations for training that would change what the network computes are left out, and the job goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compress.network import Network
from compress.pruning import settle
from compress.training import restate
from hw_profiles.host_lock import HostLock
from workers.job import run
from workers.plan import JobPlan
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def _doubled(network: Network, *_: Any) -> Network:
    return network.with_constants({"fc.weight": 2 * network.constants["fc.weight"]})


def _doubled_constants(node: Any, network: Network, *_: Any) -> Any:
    return {"fc.weight": 2 * network.constants["fc.weight"]}


def test_a_job_goes_on_without_a_help_that_does_not_work(
    job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "_without_constants", _doubled)
    monkeypatch.setattr(restate, "_restated", _doubled_constants)
    plan, ports = job()
    assert run(plan, ports, lock).verdict is not None
    told = [text for text in ports.warnings if "without loss" in text]
    assert len(told) == 2
    assert "constant channels cannot be emptied without loss: output 'logits' differs" in told[1]
    assert told[1].startswith("The network is trained without this preparation: ")
