"""Engine files: an engine with a format of its own is believed once its file says what the network says."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from compress.network import Network
from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.host_lock import HostLock
from hw_profiles.runtimes import Arrays, Progress
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.timing.conversion import Conversion
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from workers.errors import MeasurementFailed
from workers.job import run
from workers.plan import JobPlan
from workers.progress import Made
from workers.running.context import Context
from workers.running.engine_files import SAMPLES, engine_file, engine_files
from workers.running.inputs import Inputs
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]
SUFFIX = ".packed"


@dataclass
class PackedRuntime(SimulatedRuntime):
    """Runs ONNX files that are packed; `off` is added to what it computes."""

    off: float = 0.0

    def convert(self, model: bytes, device: DeviceConfig) -> bytes:
        self.fused(model)
        return b"packed" + zlib.compress(model)

    def run(self, file: bytes, inputs: Arrays, device: DeviceConfig) -> Arrays:
        outputs = super().run(_unpacked(file), inputs, device)
        return {name: value + np.float32(self.off) for name, value in outputs.items()}

    def time(
        self,
        files: dict[str, bytes],  # type: ignore[override]  # tests hand over what they made
        device: DeviceConfig,
        protocol: BurstProtocol,
        progress: Progress | None = None,
    ) -> dict[str, Sample | Failure]:
        return dict(super().time({key: _unpacked(file) for key, file in files.items()}, device, protocol, progress))


def _unpacked(file: bytes) -> bytes:
    if not file.startswith(b"packed"):
        raise InvalidInput("file", len(file), "is no packed file")
    return zlib.decompress(file.removeprefix(b"packed"))


def packed(job: Job, off: float = 0.0) -> tuple[JobPlan, MemoryPorts]:
    """The plan of `job`, and ports to a device that runs packed files."""
    plan, ports = job()
    runtime = PackedRuntime(overhead_us=1.0, contention=1.0, off=off)
    ((name, table),) = ports.tables.items()
    device = replace(table.device, suffix=SUFFIX)
    tables = {name: replace(table, device=device)}
    return plan, MemoryPorts(ports.work_dir, runtime, {name: device}, ports.protocol, tables)


def opened(plan: JobPlan, ports: MemoryPorts) -> tuple[Context, Inputs, str]:
    context = Context(plan, ports, ports.recorded())
    return context, Inputs.open(context), plan.targets[0].device_id


def test_a_job_hands_over_the_very_files_that_were_timed(job: Job) -> None:
    plan, ports = packed(job)
    outcome = run(plan, ports)
    assert outcome.end == "finished"
    engines = [message for message in ports.messages if isinstance(message, Made) and message.kind == "engine"]
    chosen = next(each for each in engines if each.name == f"tiny-{plan.targets[0].device_name}{SUFFIX}")
    assert _unpacked(chosen.path.read_bytes()) == ports.files["onnx"].read_bytes(), "beside the ONNX file"
    timed = {path.read_bytes() for path in ports.work_dir.glob(f"checkpoints/engine-*{SUFFIX}")}
    assert {each.path.read_bytes() for each in engines} <= timed
    judged = json.loads(ports.files["report_json"].read_text())["finalists"]
    assert len(engines) == len({each["name"] for each in judged})
    listed = json.loads(ports.files["manifest"].read_text())["files"]
    for each in engines:
        assert listed[each.name] == hashlib.sha256(each.path.read_bytes()).hexdigest()
    assert not list(ports.work_dir.glob("timed/**/*.onnx")), "nothing is timed but the engine's files"


def test_a_file_that_says_something_else_is_not_believed(job: Job, trained: Network, tmp_path: Path) -> None:
    context, inputs, device_id = opened(*packed(job, off=0.5))
    found = engine_files(context, inputs, device_id, {"uploaded": trained.save()}, tmp_path)["uploaded"]
    assert isinstance(found, Failure)
    text = found.reason
    assert "simulated converted network 'uploaded' with other outputs" in text
    said, network = (float(number) for number in re.findall(r"(?:begins with|instead of) ([-0-9.e]+),", text))
    assert said == pytest.approx(network + 0.5, abs=1e-4)
    assert "is allowed" in text
    assert engine_file(context, device_id, trained.save()) is None


def test_what_was_converted_once_is_not_converted_again(
    job: Job, trained: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ports = packed(job)
    asked: list[int] = []
    honest = ports.converted

    def counted(device_id: str, models: list[bytes], samples: Arrays, timeout_s: float) -> list[Conversion | Failure]:
        asked.append(len(models))
        assert {len(images) for images in samples.values()} == {SAMPLES}
        return list(honest(device_id, models, samples, timeout_s))

    monkeypatch.setattr(ports, "converted", counted)
    context, inputs, device_id = opened(plan, ports)
    first = engine_files(context, inputs, device_id, {"uploaded": trained.save()}, tmp_path)
    context, inputs, device_id = opened(plan, ports)
    again = engine_files(context, inputs, device_id, {"other name": trained.save()}, tmp_path)
    assert asked == [1]
    assert first["uploaded"] == again["other name"]


def test_one_network_that_cannot_be_converted_does_not_keep_the_others(
    job: Job, trained: Network, tmp_path: Path
) -> None:
    context, inputs, device_id = opened(*packed(job))
    found = engine_files(context, inputs, device_id, {"odd": b"no network", "uploaded": trained.save()}, tmp_path)
    assert isinstance(found["odd"], Failure)
    assert "not an ONNX file" in found["odd"].reason
    assert isinstance(found["uploaded"], Path)


@dataclass
class ReadingRuntime(SimulatedRuntime):
    """Reads ONNX; `off` is added to what it computes."""

    off: float = 0.0

    def run(self, file: bytes, inputs: Arrays, device: DeviceConfig) -> Arrays:
        return {name: value + np.float32(self.off) for name, value in super().run(file, inputs, device).items()}


def reading(job: Job, engine: ReadingRuntime, **device: str) -> tuple[JobPlan, MemoryPorts]:
    """The plan of `job`, and ports to a device whose engine reads ONNX."""
    plan, ports = job()
    ((name, table),) = ports.tables.items()
    table = replace(table, device=replace(table.device, **{"kind": "cpu", **device}))  # type: ignore[arg-type]
    return plan, MemoryPorts(ports.work_dir, engine, {name: table.device}, ports.protocol, {name: table})


def test_outputs_that_decide_are_checked_on_an_engine_that_reads_onnx_too(
    job: Job, trained: Network, tmp_path: Path
) -> None:
    context, inputs, device_id = opened(*reading(job, ReadingRuntime(off=0.5)))
    models = {"uploaded": trained.save()}
    found = engine_files(context, inputs, device_id, models, tmp_path, {"uploaded"})["uploaded"]
    assert isinstance(found, Failure)
    assert "simulated ran network 'uploaded' with other outputs" in found.reason
    assert isinstance(engine_files(context, inputs, device_id, models, tmp_path)["uploaded"], Path), "decides nothing"
    context, inputs, device_id = opened(*reading(job, ReadingRuntime()))
    honest = engine_files(context, inputs, device_id, models, tmp_path, {"uploaded"})["uploaded"]
    assert isinstance(honest, Path)
    assert honest.read_bytes() == trained.save()


@pytest.mark.parametrize("device", [{"kind": "simulated"}, {"runtime": "onnxruntime"}])
def test_an_engine_whose_outputs_are_the_reference_is_asked_nothing(
    job: Job, trained: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: dict[str, str]
) -> None:
    plan, ports = reading(job, ReadingRuntime(), **device)
    monkeypatch.delattr(MemoryPorts, "converted")
    context, inputs, device_id = opened(plan, ports)
    found = engine_files(context, inputs, device_id, {"uploaded": trained.save()}, tmp_path, {"uploaded"})["uploaded"]
    assert isinstance(found, Path)
    assert found.read_bytes() == trained.save()


def test_a_job_checks_the_original_and_the_finalists_once_on_an_engine_that_reads_onnx(
    job: Job, lock: HostLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ports = reading(job, ReadingRuntime(overhead_us=1.0, contention=1.0))
    asked: list[bytes] = []
    honest = ports.converted

    def seen(device_id: str, models: list[bytes], samples: Arrays, timeout_s: float) -> Sequence[Conversion | Failure]:
        asked.extend(models)
        return honest(device_id, models, samples, timeout_s)

    monkeypatch.setattr(ports, "converted", seen)
    assert run(plan, ports, lock).end == "finished"
    judged = json.loads(ports.files["report_json"].read_text())["finalists"]
    assert len(asked) == len(set(asked)) == 1 + len(judged)
    assert ports.files["onnx"].read_bytes() in asked


def test_a_job_whose_engine_computes_something_else_ends_at_its_first_timing(job: Job, lock: HostLock) -> None:
    plan, ports = reading(job, ReadingRuntime(off=0.5))
    with pytest.raises(MeasurementFailed, match="uploaded network: simulated ran network 'uploaded' with other"):
        run(plan, ports, lock)
    assert ports.phases == ["profile"]
