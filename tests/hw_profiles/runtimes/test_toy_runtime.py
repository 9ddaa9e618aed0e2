"""A third party's runtime is one file: a toy engine with a file format of its own, which only the agent's process has.

The server never imports it. From enrolment to the verdict, and to the engine's own file among the artifacts, nothing
else is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from whole_job import PATIENCE_S, ROOT, Service, accuracy, images, submit, until, upload

from hw_profiles import runtimes
from hw_profiles.agent.__main__ import TOKEN_VARIABLE
from hw_profiles.host_lock import LOCK_DIR_VARIABLE
from hw_profiles.runtimes import Runtime
from hw_profiles.tables.probe import probe
from hw_profiles.tables.table import LatencyTable, Row
from hw_profiles.testing import RuntimeContract
from hw_profiles.timing.copies_timing import time_ops
from hw_profiles.timing.protocol import BurstProtocol, Timing

DEVICE = "shelf-toy-t1-fp32"
TOY = '''
"""An engine whose programs are a header and a packed graph. Its time is a price of each weight; it has no clock."""

import zlib

import onnx
from onnx.reference import ReferenceEvaluator

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.runtimes import Runtime
from hw_profiles.runtimes.simulated.engine import VirtualClock
from hw_profiles.timing.bursts import run_bursts
from hw_profiles.timing.protocol import Failure

HEADER = b"TOY7"
CALL_US, NODE_US, WEIGHT_US = 20.0, 1.0, 0.01


def parsed(model):
    try:
        return onnx.load_model_from_string(model)
    except Exception as error:
        raise InvalidInput("model", len(model), "not an ONNX file") from error


def opened(file):
    if not file.startswith(HEADER):
        raise InvalidInput("file", len(file), "no program of the toy")
    return parsed(zlib.decompress(file[len(HEADER):]))


def latency_us(graph):
    weights = sum(size for size in (_elements(tensor) for tensor in graph.initializer) if size > 1)
    return CALL_US + NODE_US * len(graph.node) + WEIGHT_US * weights


def _elements(tensor):
    elements = 1
    for size in tensor.dims:
        elements *= size
    return elements


class ToyRuntime(Runtime):
    name = "toy"

    def version(self):
        return "7"

    def configs(self, machine):
        return [DeviceConfig(machine, "simulated", self.name, self.version(), suffix=".toy")]

    def convert(self, model, device):
        return HEADER + zlib.compress(parsed(model).SerializeToString())

    def run(self, file, inputs, device):
        model = opened(file)
        names = [output.name for output in model.graph.output]
        return dict(zip(names, ReferenceEvaluator(model).run(names, dict(inputs))))

    def time(self, files, device, protocol, progress=None):
        clock, calls, failures = VirtualClock(0, contention=1.0), {}, {}
        for key, file in files.items():
            try:
                seconds = latency_us(opened(file).graph) * 1e-6
                calls[key] = lambda seconds=seconds: clock.run(seconds)
            except InvalidInput as error:
                failures[key] = Failure(key, str(error), "load")
        timed = run_bursts(calls, protocol, clock=clock, sleep=clock.sleep, progress=progress)
        return {key: failures.get(key) or timed[key] for key in files}

    def fused(self, model):
        """A convolution takes the activation that alone reads it along; any other node is a kernel."""
        nodes = list(parsed(model).graph.node)
        names = [node.name for node in nodes]
        if "" in names or len(set(names)) < len(names):
            raise InvalidInput("model", "", "nodes need names of their own")
        taken, sets = set(), []
        for node in nodes:
            if node.name in taken:
                continue
            after = [other for other in nodes if node.output[0] in other.input]
            pair = node.op_type == "Conv" and [other.op_type for other in after] == ["Relu"]
            sets.append(frozenset([node.name, after[0].name] if pair else [node.name]))
            taken |= sets[-1]
        return tuple(sets)


RUNTIME = ToyRuntime()
'''


def installed(folder: Path) -> Path:
    """The toy as a distribution in a folder of its own."""
    info = folder / "toy-7.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 7\n")
    (info / "entry_points.txt").write_text("[netlathe.runtimes]\ntoy = toy_engine:RUNTIME\n")
    (folder / "toy_engine.py").write_text(TOY)
    return folder


def opened(folder: Path) -> Runtime:
    """The toy itself, not found by name: this process has the server's path."""
    spec = importlib.util.spec_from_file_location("toy_engine_of_this_test", installed(folder) / "toy_engine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runtime: Runtime = module.RUNTIME
    return runtime


class TestToyRuntime(RuntimeContract):
    @pytest.fixture
    def runtime(self, tmp_path: Path) -> Runtime:
        return opened(tmp_path / "engine")


@contextmanager
def agent(service: Service, folder: Path) -> Iterator[None]:
    """An agent in a process of its own, which alone has the toy on its path."""
    token = service.post("/tokens", json={"kind": "enrolment", "name": "shelf"})["token"]
    command = [sys.executable, "-m", "hw_profiles.agent", "--url", str(service.client.base_url)]
    command += ["--machine", "shelf", "--runtime", "toy", "--state-dir", str(folder)]
    path = os.pathsep.join([str(installed(folder / "engine")), str(ROOT)])
    with (folder / "log").open("wb") as log:
        environment = {**os.environ, TOKEN_VARIABLE: token, "PYTHONPATH": path}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: service.get("/devices")["total"] == 1, "the device")
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A server, and its conductor, without the engine."""
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = Service(tmp_path / "data")
    found.start()
    try:
        upload(found)
        yield found
    finally:
        found.end()
        torch.set_num_threads(threads)


def probed(runtime: Runtime) -> dict[str, Any]:
    """The table of a device whose alignment is known, so that the job need not find it out."""
    device, ops = runtime.configs("shelf")[0], probe().ops
    timed = time_ops(runtime, ops, device, BurstProtocol(min_rounds=2, max_rounds=2))
    rows = [Row.of(op, found) for op in ops if isinstance(found := timed[op.key], Timing)]
    return LatencyTable(device).updated(rows, epoch=1).to_json()


def files_of(service: Service, job: str) -> dict[str, tuple[dict[str, Any], bytes]]:
    """The artifacts of a job with their contents, by name."""
    found = {}
    for item in service.get(f"/jobs/{job}/artifacts")["items"]:
        content = service.client.get(f"/api/v1/artifacts/{item['id']}/content").content
        assert hashlib.sha256(content).hexdigest() == item["sha256"]
        found[item["name"]] = item, content
    return found


def predicted(service: Service) -> Any:
    """What the device's table says of the network; whatever is missing is asked for."""
    return service.post(f"/devices/{DEVICE}/predict", json={"model": "stripes", "fill": True})


def test_an_engine_that_the_server_lacks_is_a_target_like_any(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    with agent(service, folder):
        assert "toy" not in runtimes.names()
        refused = service.client.get("/api/v1/models/stripes/preflight", params={"device": DEVICE})
        assert (refused.status_code, refused.json()["code"]) == (409, "runtime_missing")
        service.post(f"/devices/{DEVICE}/table", json=probed(opened(tmp_path / "bench")))
        submit(service, "first", DEVICE)
        job = service.ended("first")
        until(lambda: bool(predicted(service)["blocks"]), "what the toy fuses")
        until(lambda: predicted(service)["coverage"] == 1.0, "the toy's timings")
        before = service.get(f"/models/stripes/preflight?device={DEVICE}")
        assert before["coverage"] == 1.0
        for warnings in (before["warnings"], predicted(service)["warnings"], job["warnings"]):
            assert sum("the runtime toy is not installed on the server" in str(each) for each in warnings) == 1
        convolutions = [block for block in predicted(service)["blocks"] if "conv" in block["layers"][0]]
        assert len(convolutions) == 3
        slopes_us = [2 * 1.0 + 0.01 * weights for weights in (9 * 4, 9 * 4 * 16, 9 * 16 * 32)]
        biases_us = [0.01 * outputs for outputs in (4, 16, 32)]
        wanted_ms = [(slope + bias) / 1e3 for slope, bias in zip(slopes_us, biases_us, strict=True)]
        assert [block["latency_ms"] for block in convolutions] == pytest.approx(wanted_ms, rel=0.05), (
            "two nodes a kernel"
        )
    assert (job["state"], job["verdict"], job["failure"]) == ("succeeded", "met", None)
    ((_, timed),) = job["best"]["latency_ms"].items()
    ((_, before),) = job["original"]["latency_ms"].items()
    assert timed["measured_high"] <= 0.85 * before["measured"]

    files = files_of(service, "first")
    assert {item["kind"] for item, _ in files.values()} == {"onnx", "engine", "report_html", "report_json", "manifest"}
    (model,) = [content for item, content in files.values() if item["kind"] == "onnx"]
    item, own = files[f"first-{DEVICE}.toy"]
    assert item["kind"] == "engine"
    assert own.startswith(b"TOY7")
    manifest = service.client.get(f"/api/v1/artifacts/{files['manifest.json'][0]['id']}/content").json()
    assert manifest["files"][f"first-{DEVICE}.toy"] == item["sha256"]

    runtime = opened(tmp_path / "test")
    device = runtime.configs("shelf")[0]
    shown = (images(20, 3)[0].transpose(0, 3, 1, 2) / 255).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    wanted = np.asarray(session.run(["logits"], {"image": shown})[0])
    said = np.concatenate([runtime.run(own, {"image": shown[i : i + 1]}, device)["logits"] for i in range(len(shown))])
    assert np.abs(said - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert accuracy(model) == pytest.approx(job["best"]["test_accuracy"], abs=0.006)  # one image may sit on a tie
