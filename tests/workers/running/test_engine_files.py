"""Engine files: an engine with a format of its own is believed once its file says what the network says."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from compress.network import Network
from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
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
    with pytest.raises(MeasurementFailed) as failed:
        engine_files(context, inputs, device_id, {"uploaded": trained.save()}, tmp_path)
    text = str(failed.value)
    assert "simulated converted network 'uploaded' to a file with other outputs" in text
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

    def counted(device_id: str, models: list[bytes], samples: Arrays, timeout_s: float) -> list[Conversion]:
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


def test_an_engine_that_reads_onnx_is_asked_nothing(
    job: Job, trained: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ports = job()
    monkeypatch.delattr(MemoryPorts, "converted")
    context, inputs, device_id = opened(plan, ports)
    found = engine_files(context, inputs, device_id, {"uploaded": trained.save()}, tmp_path)
    assert found["uploaded"].read_bytes() == trained.save()
