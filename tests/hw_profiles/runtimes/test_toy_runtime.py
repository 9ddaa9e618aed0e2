"""A third party's runtime is one file: a toy engine with a file format of its own, which only the agent's process has.

The server never imports it. From enrolment over what it fuses and its timings to a prediction, nothing else is needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from agent_calls import bearer, enrolment_token
from live_server import serving, until
from patience import PATIENCE_S
from service_networks import classifier

from hw_profiles import runtimes
from hw_profiles.agent.__main__ import TOKEN_VARIABLE
from hw_profiles.host_lock import LOCK_DIR_VARIABLE
from service.files.secret_values import new_secret
from service.settings import Settings
from service.store import Store, make_engine, tokens
from service.store.migrate import migrate

TOY = '''
"""An engine whose programs are lines of text: `kernel <microseconds> <node> <node> ...`."""

import onnx

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.runtimes.simulated.engine import VirtualClock
from hw_profiles.timing.bursts import run_bursts
from hw_profiles.timing.protocol import Failure, Sample
from hw_profiles.timing.timing_model import fusion_mismatch

CALL_US, NODE_US = 20.0, 10.0


def compiled(model: bytes) -> str:
    """A convolution takes the activation that alone reads it along; any other node is a kernel."""
    try:
        nodes = list(onnx.load_model_from_string(model).graph.node)
    except Exception as error:
        raise InvalidInput("model", len(model), "not an ONNX file") from error
    readers = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    taken, lines = set(), []
    for node in nodes:
        if node.name in taken:
            continue
        after = readers.get(node.output[0], [])
        pair = node.op_type == "Conv" and len(after) == 1 and after[0].op_type == "Relu"
        names = [node.name, after[0].name] if pair else [node.name]
        taken.update(names)
        lines.append(" ".join(["kernel", str(NODE_US * len(names)), *(name.replace(" ", "%") for name in names)]))
    return "\\n".join(lines)


def kernels(program: str) -> list[tuple[float, list[str]]]:
    words = [line.split(" ") for line in program.splitlines()]
    return [(float(us), [name.replace("%", " ") for name in names]) for _, us, *names in words]


class ToyRuntime:
    name = "toy"

    def version(self) -> str:
        return "7"

    def configs(self, machine):
        return [DeviceConfig(machine, "simulated", self.name, self.version())]

    def fused(self, model):
        return tuple(frozenset(names) for _, names in kernels(compiled(model)))

    def time(self, models, device, protocol, progress=None):
        clock, calls, failures = VirtualClock(0, contention=1.0), {}, {}
        for key, model in models.items():
            try:
                latency_us = CALL_US + sum(us for us, _ in kernels(compiled(model)))
                calls[key] = lambda latency_us=latency_us: clock.run(latency_us * 1e-6)
            except InvalidInput as error:
                failures[key] = Failure(key, str(error), "load")
        timed = run_bursts(calls, protocol, clock=clock, sleep=clock.sleep, progress=progress)
        for key, sample in timed.items():
            if fusion_mismatch(onnx.load_model_from_string(models[key]), self.fused):
                sample.extra["suspect"] = "fusion_mismatch"
        return {key: failures.get(key) or timed[key] for key in models}


RUNTIME = ToyRuntime()
'''


def installed(folder: Path) -> Path:
    """The toy as a distribution in a folder of its own, which is put on the path of the agent alone."""
    info = folder / "toy-7.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 7\n")
    (info / "entry_points.txt").write_text("[netlathe.runtimes]\ntoy = toy_engine:RUNTIME\n")
    (folder / "toy_engine.py").write_text(TOY)
    return folder


@contextmanager
def agent(url: str, token: str, folder: Path) -> Iterator[None]:
    """An agent in a process of its own, with the toy on its path."""
    command = [sys.executable, "-m", "hw_profiles.agent", "--url", url, "--machine", "shelf"]
    command += ["--runtime", "toy", "--state-dir", str(folder)]
    path = os.pathsep.join([str(installed(folder / "engine")), str(Path(runtimes.__file__).parents[2])])
    known = {TOKEN_VARIABLE: token, LOCK_DIR_VARIABLE: str(folder), "PYTHONPATH": path}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **known}, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", event_poll_s=0.02)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    settings.data_dir.mkdir(parents=True)
    engine = make_engine(settings.url)
    migrate(engine)
    found = Store(engine)
    yield found
    found.close()


@pytest.fixture
def user(settings: Settings, store: Store) -> Iterator[httpx.Client]:
    """A user of a server that lacks the engine."""
    secret = new_secret("user")
    with store.begin() as tx:
        tokens.create(tx, "user", "tester", secret)
    with (
        serving(settings, store) as url,
        httpx.Client(base_url=f"{url}/api/v1/", headers=bearer(secret), timeout=PATIENCE_S) as client,
    ):
        yield client


def predicted(user: httpx.Client, fill: bool = False) -> dict[str, Any]:
    answer = user.post("devices/shelf-toy-t1-fp32/predict", json={"model": "net", "fill": fill})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_engine_that_the_server_lacks_is_a_target_like_any(user: httpx.Client, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    assert user.post("models", files={"file": ("net.onnx", classifier())}, data={"name": "net"}).status_code == 201
    url = str(user.base_url).removesuffix("/api/v1/")
    with agent(url, enrolment_token(store), folder):
        until(lambda: user.get("devices/shelf-toy-t1-fp32").status_code == 200, "the device")
        assert "toy" not in runtimes.names()
        refused = user.get("models/net/preflight", params={"device": "shelf-toy-t1-fp32"})
        assert (refused.status_code, refused.json()["code"]) == (409, "runtime_missing")
        unknown = predicted(user)
        assert (unknown["latency_ms"], unknown["coverage"], unknown["blocks"]) == (None, 0.0, [])
        assert "has not reported yet" in unknown["warnings"][0]
        predicted(user, fill=True)
        until(lambda: bool(predicted(user)["blocks"]), "what the toy fuses")
        predicted(user, fill=True)
        until(lambda: predicted(user)["coverage"] == 1.0, "the toy's timings")
        measured = user.post("devices/shelf-toy-t1-fp32/measurements", json={"model": "net"}).json()["id"]
        until(lambda: user.get(f"measurements/{measured}").json()["state"] == "done", "the measurement")
    found = predicted(user)
    convolutions = [block for block in found["blocks"] if "conv" in block["layers"][0]]
    assert len(convolutions) == 3
    assert {block["source"] for block in found["blocks"]} == {"measured"}
    assert [block["latency_ms"] for block in convolutions] == pytest.approx([0.02] * 3, rel=0.05), (
        "each is one kernel of two nodes"
    )
    shown = user.get("models/net/preflight", params={"device": "shelf-toy-t1-fp32"})
    assert shown.status_code == 200, shown.text
    assert shown.json()["coverage"] == 1.0
