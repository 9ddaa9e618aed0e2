"""A job that is far out of reach names the limits and the lowest values that were found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hw_profiles.host_lock import HostLock
from search.problem import Constraint, Objective, Problem
from search.space import Choice, Space
from workers.job import run
from workers.phases.missed import lowest
from workers.plan import JobPlan
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def test_the_lowest_value_of_an_unreachable_limit_is_named() -> None:
    space = Space((Choice("width", (1, 2, 4), ordered=True),))
    bounds = (Constraint("macs", 5.0, "max"), Constraint("size_bytes", 900.0, "max"))
    problem = Problem(
        space,
        (Objective("accuracy", "max"),),
        bounds,
        lambda batch: {
            "macs": np.array([10.0 * each["width"] for each in batch]),
            "size_bytes": np.array([100.0 * each["width"] for each in batch]),
        },
    )
    told = list(lowest(problem, [{"width": 4}, {"width": 2}]))
    assert told == ["the limit on macs is 5, and the lowest found is 20"]


def layers(ports: MemoryPorts) -> Mapping[str, Any]:
    """The nearest network of a job that ended early, as the report has it."""
    report = json.loads(ports.files["report_json"].read_text())
    assert report["finalists"] == []
    assert "<h2>Layers of the nearest network</h2>" in ports.files["report_html"].read_text()
    found: Mapping[str, Any] = report["untrained"]
    return found


def test_a_job_under_the_floor_keeps_the_layers_of_the_smallest_network(job: Job, lock: HostLock) -> None:
    plan, ports = job(ratio=0.05)
    nearest = run(plan, ports, lock).summaries["nearest"]
    found = layers(ports)
    assert (found["candidate"], found["strategy"]) == (None, None)
    rows = {row["layer"]: row for row in found["layers"]}
    assert rows["conv2"]["after"] == nearest["values"]["conv2"] < rows["conv2"]["before"]
    assert rows["conv2"]["sensitivity"] is None, "nothing was evaluated"
    before_ms, after_ms = rows["conv2"]["latency_ms"]["dev_1"]
    assert 0 < after_ms < before_ms


def test_a_job_far_from_its_limits_keeps_the_layers_of_the_nearest_network(job: Job, lock: HostLock) -> None:
    plan, ports = job(targets=(), limits={"max_size_ratio": 1e-4, "max_accuracy_drop": 0.02})
    nearest = run(plan, ports, lock).summaries["nearest"]
    found = layers(ports)
    assert found["candidate"] == nearest["evaluation_id"]
    rows = {row["layer"]: row for row in found["layers"]}
    assert {name: rows[name]["after"] for name in nearest["values"]} == nearest["values"]
    assert all(row["sensitivity"] is not None for row in found["layers"] if row["group"])
