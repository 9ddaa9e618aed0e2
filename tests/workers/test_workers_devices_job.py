"""One job on two devices with different kernels and different limits, from the tables to each device's file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from compress.importing.normalise import load_network
from compress.network import Network
from hw_profiles.device import DeviceConfig
from hw_profiles.host_lock import HostLock
from hw_profiles.runtimes import Progress
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from workers.job import run
from workers.plan import Budget, JobPlan, Target
from workers.pools.executor import LocalExecutor
from workers.progress import Evaluated, Made, SummarisedDevices
from workers.running.memory_ports import MemoryPorts
from workers.training.parallel_training import Course, Ended, learn

Job = Callable[..., tuple[JobPlan, MemoryPorts]]
HERE, THERE = "dev_1", "dev_2"
PI5 = DeviceConfig("pi5", "simulated", "simulated", "1")


def pi5_runtime() -> SimulatedRuntime:
    """A call takes longer than on the other device, and channels are rounded up further."""
    return SimulatedRuntime(7, 32, 8, overhead_us=5.0, contention=1.0)


@dataclass
class TwoDevices(SimulatedRuntime):
    """Times a network on the device that is asked for."""

    pi5: SimulatedRuntime = field(default_factory=pi5_runtime)

    def time(
        self,
        files: Mapping[str, bytes],
        device: DeviceConfig,
        protocol: BurstProtocol,
        progress: Progress | None = None,
    ) -> Mapping[str, Sample | Failure]:
        if device.machine == PI5.machine:
            return self.pi5.time(files, device, protocol, progress)
        return super().time(files, device, protocol, progress)


@pytest.fixture(scope="module")
def pi5_table(trained: Network, whole_table: Callable[..., LatencyTable]) -> LatencyTable:
    return whole_table(trained, pi5_runtime(), PI5)


@pytest.fixture
def on_two(job: Job, pi5_table: LatencyTable) -> Job:
    """Makes a job on two devices with limits as shares of the original's latency."""

    def make(here: float, there: float, **changes: object) -> tuple[JobPlan, MemoryPorts]:
        plan, one = job(budget=Budget(evaluations=6, wall_s=600, finalists=3), **changes)
        (target,) = plan.targets
        targets = (replace(target, max_latency_ratio=here), Target(THERE, PI5.name, max_latency_ratio=there))
        devices = {HERE: one.devices[HERE], THERE: PI5}
        runtime = TwoDevices(overhead_us=1.0, contention=1.0)
        tables = {**one.tables, THERE: pi5_table}
        return replace(plan, targets=targets), MemoryPorts(one.work_dir, runtime, devices, one.protocol, tables)

    return make


class Watching(LocalExecutor):
    """Trains several networks at once, or would, and keeps what it was asked for."""

    side_by_side = True

    def __init__(self) -> None:
        self.courses: list[Course] = []

    def train(self, course: Course) -> Mapping[str, Ended]:
        self.courses.append(course)
        return {
            name: learn(lesson, partial(lambda own, epoch: course.note(own, epoch, epoch.elapsed_s), name))
            for name, lesson in course.lessons.items()
        }


def results(ports: MemoryPorts) -> dict[str, Mapping[str, Any]]:
    """The last result of each device."""
    told = [m for m in ports.messages if isinstance(m, SummarisedDevices)]
    return {row["device"]: row for row in told[-1].rows}


def trained(ports: MemoryPorts) -> list[str]:
    """The ids of the candidates that were trained."""
    found = [m.evaluation.candidate for m in ports.messages if isinstance(m, Evaluated)]
    return [each.parents[0] for each in found if each.fidelity == "F4"]


def onnx_files(ports: MemoryPorts) -> list[str]:
    return [m.name for m in ports.messages if isinstance(m, Made) and m.kind == "onnx"]


def test_each_device_gets_the_best_network_within_its_own_limit(on_two: Job, lock: HostLock) -> None:
    plan, ports = on_two(here=0.85, there=1.2)
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "met"), outcome.reason
    best, original = outcome.summaries["best"], outcome.summaries["original"]
    found = results(ports)
    assert {device: row["verdict"] for device, row in found.items()} == {HERE: "met", THERE: "met"}
    assert found[HERE]["network"]["evaluation_id"] == best["evaluation_id"]
    own = found[THERE]["network"]
    assert own["evaluation_id"] != best["evaluation_id"]
    assert own["macs"] > best["macs"]
    assert own["accuracy"] >= best["accuracy"]
    latency_ms = {device: own["latency_ms"][device]["measured"] for device in (HERE, THERE)}
    assert latency_ms[THERE] <= 1.2 * original["latency_ms"][THERE]["measured"]
    assert latency_ms[HERE] > 0.85 * original["latency_ms"][HERE]["measured"], "it is too slow for the other device"
    assert own["test_accuracy"] is None, "the test part is read for one file"
    assert best["test_accuracy"] is not None
    assert len(trained(ports)) == len(set(trained(ports))) <= plan.budget.finalists

    assert onnx_files(ports) == ["tiny.onnx", f"tiny-{PI5.name}.onnx"]
    assert [found[device]["file"] for device in (HERE, THERE)] == onnx_files(ports)
    file = load_network(ports.work_dir / "result" / found[THERE]["file"])
    assert sum(each.size for each in file.constants.values()) > best["parameters"]
    report = json.loads(ports.files["report_json"].read_text())
    assert [row["device"] for row in report["devices"]] == [HERE, THERE]
    assert "Each device by its own limits" in ports.files["report_html"].read_text()
    assert found[THERE]["file"] in json.loads(ports.files["manifest"].read_text())["files"]

    measured = len(ports.measured)
    again = run(plan, ports, lock)
    assert (again.verdict, again.summaries) == (outcome.verdict, outcome.summaries)
    assert results(ports) == found
    assert len(ports.measured) == measured


def test_a_network_that_serves_both_devices_is_trained_and_handed_over_once(on_two: Job, lock: HostLock) -> None:
    plan, ports = on_two(here=0.8, there=0.8)
    plan = replace(plan, budget=Budget(evaluations=6, wall_s=600, finalists=1))
    outcome = run(plan, ports, lock)
    assert outcome.end == "finished"
    assert len(trained(ports)) >= 1
    shown = outcome.summaries["best" if outcome.verdict == "met" else "nearest"]
    found = results(ports)
    same = [row for row in found.values() if row["network"]["evaluation_id"] == shown["evaluation_id"]]
    assert all(row["file"] == "tiny.onnx" for row in same)
    assert len(onnx_files(ports)) == len({row["file"] for row in found.values()} | {"tiny.onnx"})


def test_a_device_that_cannot_be_fast_enough_does_not_end_the_job_of_the_other(on_two: Job, lock: HostLock) -> None:
    plan, ports = on_two(here=0.8, there=0.02)
    executor = Watching()
    outcome = run(plan, ports, lock, executor)
    assert (outcome.end, outcome.verdict) == ("finished", "missed")
    found = results(ports)
    assert {device: row["verdict"] for device, row in found.items()} == {HERE: "met", THERE: "missed"}
    (warned,) = [text for text in ports.warnings if "goes on for its other devices" in text]
    assert warned.startswith(f"{PI5.name}: the limit is ")
    assert f"meets those of {plan.targets[0].device_name}" in outcome.reason
    assert found[HERE]["file"] in onnx_files(ports)
    assert not any(course.by_score for course in executor.courses), "finalists of two devices are not compared"


def test_a_job_that_no_device_can_be_fast_enough_for_ends_before_the_search(on_two: Job, lock: HostLock) -> None:
    plan, ports = on_two(here=0.02, there=0.02)
    outcome = run(plan, ports, lock)
    assert (outcome.end, outcome.verdict) == ("finished", "missed")
    assert ports.phases == ["profile", "package"]
    for target in plan.targets:
        assert target.device_name in outcome.reason
    assert not [m for m in ports.messages if isinstance(m, SummarisedDevices)]


def test_one_device_has_no_results_beside_the_jobs(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    executor = Watching()
    run(plan, ports, lock, executor)
    assert all(course.by_score for course in executor.courses)
    assert not [m for m in ports.messages if isinstance(m, SummarisedDevices)]
    assert onnx_files(ports) == ["tiny.onnx"]
    assert json.loads(ports.files["report_json"].read_text())["devices"] == []
