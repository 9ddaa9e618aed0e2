"""Whole jobs on networks with more than one output."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from compress.importing.normalise import load_network
from compress.network import Network
from hw_profiles.host_lock import HostLock
from workers.job import run
from workers.plan import JobPlan, ModelInput, Training
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def with_embedding(network: Network) -> Network:
    """The input of the head as the first of two outputs."""
    outputs = {"flat": network.types["flat"], **network.outputs}
    return load_network(replace(network, outputs=outputs).save())


def test_the_scores_are_judged_though_they_are_not_the_first_output(job: Job, trained: Network, lock: HostLock) -> None:
    plan, ports = job(known=False, training=Training(epochs=2, augment="none"))
    network = with_embedding(trained)
    assert network.output_name == "flat"
    plan = replace(plan, model=ModelInput(ports.put_bytes(network.save()), "two"))
    outcome = run(JobPlan.from_json(json.loads(json.dumps(plan.to_json()))), ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met")
    assert outcome.summaries["original"]["accuracy"] > 0.9
    assert outcome.summaries["best"]["accuracy"] > 0.8
    result = load_network(ports.files["onnx"])
    assert list(result.outputs) == ["flat", "logits"]
    assert result.output_name == "logits"
    assert result.outputs["flat"].shape == network.outputs["flat"].shape
