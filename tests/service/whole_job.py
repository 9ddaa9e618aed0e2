"""A tiny network, its data, and everything that turns them into a file: a real server, a real agent, real processes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from processes import children, command_line

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing
from compress.importing.normalise import load_network
from compress.training.fit import fit
from compress.training.recipe import Recipe
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.tables.probe import probe
from hw_profiles.tables.table import LatencyTable, Row
from hw_profiles.timing.copies_timing import time_ops
from hw_profiles.timing.protocol import BurstProtocol, Timing

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 900.0
"""A guard against hanging, not an expectation of speed."""
POLL_S = 0.5
"""Between two looks at a job that takes a minute: each look costs the server, which shares the job's processors."""
CLASSES = 4
WIDTHS = (4, 16, 32)
NORM = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0}
EPOCHS = 3
SERVER = """
import sys
from pathlib import Path
from service.processes.serve import serve
from service.settings import Settings
from compress.importing.normalise import load_network
settings = Settings(data_dir=Path(sys.argv[1]), port=int(sys.argv[2]), lease_s=2.0, renew_s=0.5, job_processes=1)
sys.exit(serve(settings, agent=False, ready=lambda url: print(url, flush=True)))
"""


@dataclass(frozen=True)
class Look:
    """Of images: their side in pixels, and how far stripes stand out of noise of 20."""

    side: int = 16
    contrast: float = 80.0


PLAIN = Look()
SLOW = Look(side=32, contrast=12.0)
"""An evaluation takes long enough for a kill to meet it, and no two candidates are alike."""


def images(count: int, seed: int, look: Look = PLAIN) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Stripes of four directions in noise: (count, side, side, 1) and the number of the direction."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    y, x = np.mgrid[: look.side, : look.side]
    angle = labels[:, None, None] * np.pi / CLASSES
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    waves = np.sin(1.6 * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    noisy = 128 + look.contrast * waves + 20 * rng.standard_normal(waves.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)[..., None], labels


def data_set(val: int = 500, look: Look = PLAIN) -> bytes:
    """An .npz with 600 images to train on, `val` to decide on, 200 to test on."""
    parts = {"train": images(600, 1, look), "val": images(val, 2, look), "test": images(200, 3, look)}
    arrays: dict[str, NDArray[Any]] = {f"x_{name}": part[0] for name, part in parts.items()}
    arrays |= {f"y_{name}": part[1] for name, part in parts.items()}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def network(look: Look = PLAIN) -> bytes:
    """Three convolutions with batch norms, a pool and a linear layer, trained for a few seconds."""
    rng = np.random.default_rng(0)
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    read, inputs = "image", 1
    for i, width in enumerate(WIDTHS):
        kernel = (rng.standard_normal((width, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"conv{i}.weight"))
        weights += [
            numpy_helper.from_array(np.full(width, x, np.float32), f"norm{i}.{name}") for name, x in NORM.items()
        ]
        nodes.append(helper.make_node("Conv", [read, f"conv{i}.weight"], [f"a{i}"], f"conv{i}", pads=[1] * 4))
        nodes.append(
            helper.make_node("BatchNormalization", [f"a{i}", *(f"norm{i}.{n}" for n in NORM)], [f"b{i}"], f"n{i}")
        )
        nodes.append(helper.make_node("Relu", [f"b{i}"], [f"r{i}"], f"relu{i}"))
        read, inputs = f"r{i}", width
    head = (0.1 * rng.standard_normal((CLASSES, inputs))).astype(np.float32)
    weights += [
        numpy_helper.from_array(head, "fc.weight"),
        numpy_helper.from_array(np.zeros(CLASSES, np.float32), "fc.bias"),
    ]
    nodes.append(helper.make_node("GlobalAveragePool", [read], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"))
    nodes.append(helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1))
    recipe = Recipe(epochs=EPOCHS, batch=32, lr=0.05, augment="none")
    steps = fit(load_network(_model(nodes, weights, look.side)), Part(*images(600, 1, look)), Preprocessing(), recipe)
    *_, last = steps
    return last.network().save()


def accuracy(model: bytes, seed: int = 3) -> float:
    """Of the test part, by onnxruntime alone."""
    shown, labels = images(200, seed)
    return float((_run(model, shown).argmax(1) == labels).mean())


def _model(nodes: list[NodeProto], weights: list[TensorProto], side: int) -> bytes:
    values = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, side, side])]
    made = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])]
    graph = helper.make_graph(nodes, "stripes", values, made, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _run(model: bytes, shown: NDArray[np.uint8]) -> NDArray[np.float32]:
    running = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = running.run(None, {"image": (shown.transpose(0, 3, 1, 2) / 255).astype(np.float32)})
    return np.asarray(found)


def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S, poll_s: float = 0.05) -> None:
    """Wait until something holds, and look every `poll_s`. Fails after `patience_s`."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, f"waited in vain: {what}"
        time.sleep(poll_s)


@dataclass
class Service:
    """`serve` in a process of its own, on a port that stays the same when it is started again."""

    data_dir: Path
    port: int = 0
    process: subprocess.Popen[str] = field(init=False)
    client: httpx.Client = field(init=False)

    def start(self) -> None:
        with (self.data_dir.parent / "serve.log").open("a") as log:
            command = [sys.executable, "-c", SERVER, str(self.data_dir), str(self.port)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads of many processes would wait for each other
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        url = self.process.stdout.readline().strip()
        self.port = int(url.rsplit(":", 1)[1])
        token = (self.data_dir / "user-token").read_text().strip()
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.close()

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.kill()

    def close(self) -> None:
        self.client.close()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def get(self, path: str) -> Any:
        answer = self.client.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, **given: Any) -> Any:
        answer = self.client.post(f"/api/v1{path}", **given)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def conductor(self) -> int:
        """The process id of the conductor: the child of the server that runs service.conducting.conductor."""
        found: list[int] = []

        def there() -> bool:
            found[:] = [
                pid for pid in children(self.process.pid) if "service.conducting.conductor" in command_line(pid)
            ]
            return len(found) == 1

        until(there, "a conductor")
        return found[0]

    def evaluator(self) -> int:
        """The process id of the conductor's evaluator, once there is one."""
        found: list[int] = []

        def there() -> bool:
            found[:] = [pid for pid in children(self.conductor()) if "spawn_main" in command_line(pid)]
            return len(found) == 1

        until(there, "an evaluator")
        return found[0]

    def job(self, name: str) -> Any:
        return self.get(f"/jobs/{name}")

    def evaluations(self, name: str) -> list[Any]:
        items: list[Any] = self.get(f"/jobs/{name}/evaluations?page_size=500")["items"]
        return items

    def ended(self, name: str, patience_s: float = PATIENCE_S) -> Any:
        """The job, once it has ended."""
        ends = ("succeeded", "failed", "cancelled")
        until(lambda: self.job(name)["state"] in ends, f"the end of {name}", patience_s, POLL_S)
        return self.job(name)


@contextmanager
def agent(service: Service, folder: Path) -> Iterator[str]:
    """A real agent process with a simulated device; the device's name."""
    made = service.post("/tokens", json={"kind": "enrolment", "name": "bench"})
    command = [sys.executable, "-m", "hw_profiles.agent", "--url", str(service.client.base_url)]
    command += ["--machine", "bench", "--runtime", "simulated", "--state-dir", str(folder)]
    environment = {**os.environ, "NETLATHE_ENROLMENT_TOKEN": made["token"]}
    with (folder.parent / "agent.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: service.get("/devices")["total"] == 1, "the device")
        yield service.get("/devices")["items"][0]["name"]
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def submit(service: Service, name: str, device: str, evaluations: int = 4) -> Any:
    """Queue a job on the uploaded network and data; what was answered."""
    body = {
        "name": name,
        "model": "stripes",
        "dataset": "stripes",
        "targets": [{"device": device, "max_latency_ratio": 0.85}],
        "limits": {"max_accuracy_drop": 0.3},
        "methods": ["filter_prune"],
        "strategies": ["random"],
        "budget": {"evaluations": evaluations, "wall_s": 600, "finalists": 1},
        "training": {"epochs": 1, "augment": "none"},
    }
    return service.post("/jobs", json=body, headers={"Idempotency-Key": name})


def probed() -> dict[str, Any]:
    """The table of a device whose alignment is known, so that no job has to find it out: 129 blocks."""
    runtime = SimulatedRuntime()
    device = runtime.configs("bench")[0]
    ops = probe().ops
    timed = time_ops(runtime, ops, device, BurstProtocol(min_rounds=5, max_rounds=5))
    rows = [Row.of(op, found) for op in ops if isinstance(found := timed[op.key], Timing)]
    return LatencyTable(device).updated(rows, epoch=1).to_json()


def upload(service: Service) -> None:
    """The network and its data, both named `stripes`."""
    service.post("/models", data={"name": "stripes"}, files={"file": ("stripes.onnx", network())})
    service.post("/datasets", data={"name": "stripes"}, files={"file": ("stripes.npz", data_set())})
