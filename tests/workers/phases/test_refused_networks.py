"""A network that a device refuses ends no job: it is left out, and the job says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
import pytest

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.host_lock import HostLock
from hw_profiles.runtimes import Progress
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from workers.errors import JobFailed, MeasurementFailed
from workers.job import run
from workers.plan import JobPlan, Named
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]
REASON = "no kernel for Odd"


@dataclass
class PickyRuntime(SimulatedRuntime):
    """Refuses the networks for whose names `refuses` is true."""

    refuses: Callable[[str], bool] = lambda name: False

    def time(
        self,
        files: Mapping[str, bytes],
        device: DeviceConfig,
        protocol: BurstProtocol,
        progress: Progress | None = None,
    ) -> Mapping[str, Sample | Failure]:
        odd = {name: Failure(name, REASON, "load") for name in files if self.refuses(name)}
        good = {name: file for name, file in files.items() if name not in odd}
        return {**super().time(good, device, protocol, progress), **odd}


def picky(job: Job, refuses: Callable[[str], bool]) -> tuple[JobPlan, MemoryPorts]:
    plan, ports = job()
    ports.runtime = PickyRuntime(overhead_us=1.0, contention=1.0, refuses=refuses)
    return plan, ports


def test_a_finalist_and_a_calibration_network_that_are_refused_are_left_out(job: Job, lock: HostLock) -> None:
    refused = {"random-0-0"}

    def refuses(name: str) -> bool:
        if name.startswith("finalist-") and len(refused) == 1:
            refused.add(name)
        return name in refused

    plan, ports = picky(job, refuses)
    outcome = run(plan, ports, lock)
    assert outcome.end == "finished"
    (lost,) = refused - {"random-0-0"}
    device = plan.targets[0].device_name
    assert f"{lost} is given up, because {device} refuses it: {REASON}." in ports.warnings
    told = json.loads(ports.files["report_json"].read_text())["facts"]["finalists given up"]
    assert told == f"{lost.removeprefix('finalist-')}: {device} refuses it: {REASON}"
    assert f"{device} refuses the calibration network random-0-0, which is left out: {REASON}." in ports.lines
    judged = [each["name"] for each in json.loads(ports.files["report_json"].read_text())["finalists"]]
    assert judged
    assert lost not in judged
    again = MemoryPorts(ports.work_dir, ports.runtime, ports.devices, ports.protocol, ports.tables)
    again.messages = list(ports.messages)
    assert run(plan, again, lock) == outcome, "a restart knows what was refused"
    assert not again.measured


def test_a_candidate_that_is_refused_before_training_is_not_trained(job: Job, lock: HostLock) -> None:
    seen = list[str]()

    def refuses(name: str) -> bool:
        if name.startswith("candidate-"):
            seen.append(name)
        return name in seen[:1]  # the best one

    plan, ports = picky(job, refuses)
    outcome = run(plan, ports, lock)
    assert outcome.end == "finished"
    device = plan.targets[0].device_name
    told = f"{device} refuses a candidate, which is not trained: {REASON}."
    assert ports.lines.count(told) == 1
    evaluations = ports.recorded().evaluations
    searched = [each for each in evaluations if each.evaluation.candidate.fidelity == "F2" and each.feasible]
    best = max(searched, key=lambda each: each.evaluation.metrics["accuracy"]).evaluation.candidate
    trained = [e.evaluation.candidate for e in evaluations if e.evaluation.candidate.fidelity == "F4"]
    assert trained
    assert best.values not in [each.values for each in trained]


@pytest.mark.parametrize(
    ("refused", "phase"),
    [("uploaded", "profile"), ("random-0", "profile"), ("finalist-", "verify")],
)
def test_a_job_without_what_it_needs_fails_with_the_reason_of_the_device(
    job: Job, lock: HostLock, refused: str, phase: str
) -> None:
    also = "whole" if refused == "random-0" else refused
    plan, ports = picky(job, lambda name: name.startswith((refused, also)))
    with pytest.raises(MeasurementFailed, match=f"it refuses .*{REASON}"):
        run(plan, ports, lock)
    assert ports.phases[-1] == phase


BOTH = (Named("filter_prune"), Named("int8_ptq"))


def precisions(ports: MemoryPorts) -> set[object]:
    """The precisions of all candidates of the search."""
    found = [each.evaluation.candidate for each in ports.recorded().evaluations]
    return {each.values["int8_ptq"] for each in found if each.searched}


def test_a_larger_network_takes_the_place_of_a_smallest_one_that_is_refused(job: Job, lock: HostLock) -> None:
    seen = list[str]()

    def refuses(name: str) -> bool:
        if name == "smallest":
            seen.append(name)
        return name == "smallest" and len(seen) == 1  # the later ones are other networks

    plan, ports = picky(job, refuses)
    outcome = run(plan, ports, lock)
    assert outcome.end == "finished"
    device = plan.targets[0].device_name
    told = f"{device} refuses the smallest network, so that a larger one takes its place: {REASON}."
    assert told in ports.warnings
    assert outcome.summaries["best"]["latency_ms"]["dev_1"]["measured"] > 0
    assert len(seen) > 1, "it is an anchor of the verdict"


def test_a_precision_of_which_every_network_is_refused_is_left_out(job: Job, lock: HostLock) -> None:
    plan, ports = job(methods=BOTH)
    ports.runtime = PickyRuntime(
        overhead_us=1.0, contention=1.0, refuses=lambda name: name.startswith(("whole-1", "random-1"))
    )
    outcome = run(plan, ports, lock)
    assert outcome.end == "finished"
    device = plan.targets[0].device_name
    told = f"{device} refuses the networks with int8_ptq int8, which is left out: {REASON}."
    assert told in ports.warnings
    assert precisions(ports) == {"fp32"}
    again = MemoryPorts(ports.work_dir, ports.runtime, ports.devices, ports.protocol, ports.tables)
    again.messages = list(ports.messages)
    assert run(plan, again, lock) == outcome, "a restart knows what was left out"
    assert not again.measured


@dataclass
class FussyRuntime(SimulatedRuntime):
    """Cannot load networks with these operators."""

    unknown: frozenset[str] = frozenset()

    def fused(self, model: bytes) -> tuple[frozenset[str], ...]:
        if self.unknown & {node.op_type for node in onnx.load_model_from_string(model).graph.node}:
            raise InvalidInput("model", "it", REASON)
        return super().fused(model)


def fussy(unknown: str) -> FussyRuntime:
    return FussyRuntime(overhead_us=1.0, contention=1.0, unknown=frozenset({unknown}))


def test_a_precision_that_the_runtime_cannot_load_is_left_out(job: Job, lock: HostLock) -> None:
    plan, ports = job(methods=BOTH)
    ports.runtime = fussy("QuantizeLinear")
    outcome = run(plan, ports, lock)
    assert outcome.end == "finished"
    (told,) = [text for text in ports.warnings if "which is left out" in text]
    assert told.startswith(
        f"{plan.targets[0].device_name} cannot load the network with int8_ptq int8, which is left out"
    )
    assert REASON in told
    assert precisions(ports) == {"fp32"}


def test_a_job_of_which_every_change_is_refused_fails_with_the_reason(job: Job, lock: HostLock) -> None:
    plan, ports = job(methods=(Named("int8_ptq"),))
    ports.runtime = fussy("QuantizeLinear")
    with pytest.raises(JobFailed, match=f"int8_ptq int8.*{REASON}") as failure:
        run(plan, ports, lock)
    assert (failure.value.code, failure.value.step, failure.value.field) == ("refused", "profile", "targets")
