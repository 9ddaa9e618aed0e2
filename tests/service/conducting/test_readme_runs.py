"""The README's examples run: curl, Python and a PyTorch module, against a server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from live_server import serving
from onnx import helper, numpy_helper
from patience import PATIENCE_S
from test_conductor import conducting

from compress.builtin.digits import digits, digits_npz
from service.demo import demo
from service.processes.own_server import embedded_server
from service.settings import Settings
from service.store import Store
from service.store.devices.devices import Device
from workers.plan import JobPlan
from workers.ports import Outcome, Ports
from workers.progress import Made, Summarised

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
DATA_DIR = Path(".local", "share", "netlathe")
FINISH_S = 1200.0
MEAN, STD = 0.3097, 0.349  # as the README says


def block(language: str, with_text: str) -> str:
    """The README's one block of a language that holds a text."""
    (found,) = [each for each in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if with_text in each]
    return str(found)


@dataclass(frozen=True)
class Reader:
    """Someone who follows the README in a folder, with a home folder of their own and a server."""

    folder: Path
    home: Path
    url: str

    def shell(self, script: str) -> str:
        """What a script prints; it must not fail."""
        script = script.replace("http://127.0.0.1:8000", self.url)
        return self._run(["bash", "-euo", "pipefail", "-c", script])

    def python(self, program: str) -> str:
        """What a program prints; it must not fail."""
        return self._run([sys.executable, "-c", program])

    def _run(self, command: list[str]) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NETLATHE_", "XDG_"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**kept, "HOME": str(self.home), "PATH": path, "NETLATHE_URL": self.url}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=FINISH_S, check=False
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


def follow(reader: Reader, epochs: int = 15) -> None:
    """All examples in the README's order; the module is trained for so many epochs."""
    said = reader.shell(block("sh", "API=") + block("sh", "smaller.onnx"))
    assert "met None" in said or "missed None" in said, said
    assert onnx.load(reader.folder / "smaller.onnx").graph.node
    assert ".onnx" in reader.python(block("python", "from netlathe import Client"))
    (reader.folder / "mynet.py").write_text(block("python", "class MyNet").replace("range(15)", f"range({epochs})"))
    reader.shell(block("sh", "python mynet.py"))
    assert list((reader.folder / "out").glob("*.onnx"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    found = tmp_path / "home"
    (found / DATA_DIR).mkdir(parents=True)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the demo's data."""
    found = tmp_path / "work"
    (found / "netlathe-demo").mkdir(parents=True)
    (found / "netlathe-demo" / "digits.npz").write_bytes(digits_npz(demo.SEED))
    return found


def fitted() -> bytes:
    """A network that knows the digits without training: random convolutions, read by least squares."""
    train = digits(demo.SEED).train
    rng = np.random.default_rng(0)
    kernels = rng.standard_normal((8, 1, 4, 4)).astype(np.float32)
    pixels = ((train.images / 255.0 - MEAN) / STD).astype(np.float32).reshape(-1, 8, 4, 8, 4)
    seen = np.maximum(np.einsum("nahbw,khw->nkab", pixels, kernels[:, 0]), 0).reshape(len(pixels), -1)
    wanted = np.eye(10, dtype=np.float32)[train.labels]
    head = np.linalg.lstsq(np.hstack([seen, np.ones_like(seen[:, :1])]), wanted, rcond=1e-4)[0].astype(np.float32)
    weights = {"kernels": kernels, "head": head[:-1], "bias": head[-1]}
    nodes = [
        helper.make_node("Conv", ["image", "kernels"], ["c"], "conv", strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "head", "bias"], ["logits"], "gemm"),
    ]
    shapes = {"image": ["n", 1, 32, 32], "logits": ["n", 10]}
    (reads, writes) = (helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items())
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "digits", [reads], [writes], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.fixture
def reader(folder: Path, home: Path, settings: Settings, store: Store, user_token: str) -> Iterator[Reader]:
    """A reader whose jobs end at once: real uploads, checks, exports and downloads, but no search."""
    (folder / "netlathe-demo" / "digits.onnx").write_bytes(fitted())
    with store.begin() as tx:
        tx.session.add(
            Device(
                id="dev_1",
                name="local-onnxruntime-t1-fp32",
                machine="local",
                kind="cpu",
                runtime="onnxruntime",
                runtime_version="1",
                threads=1,
                dtype="fp32",
                emulated=False,
                options=[],
                config_id="c" * 64,
                created_at=tx.now,
                last_seen_at=tx.now,
            )
        )
    (home / DATA_DIR / "user-token").write_text(user_token)

    def run(plan: JobPlan, ports: Ports) -> Outcome:
        made = ports.work_dir / f"{plan.name}.onnx"
        made.write_bytes(ports.path(plan.model.sha256).read_bytes())
        ports.emit(Made("onnx", made.name, made), Summarised("best", {"accuracy": 0.9, "macs": 10}))
        return Outcome("finished", "met", "")

    with serving(settings, store) as url, conducting(store, settings, run):
        yield Reader(folder, home, url)


def test_the_readme_runs_to_the_files(reader: Reader) -> None:
    follow(reader, epochs=3)


@pytest.mark.long
def test_the_readme_runs_on_a_service_that_searches_and_measures(folder: Path, home: Path) -> None:
    demo._train(folder / "netlathe-demo", lambda _: None)
    with embedded_server(home / DATA_DIR, home / "server.log") as url:
        reader = Reader(folder, home, url)
        reader.python(f"import time\nfrom netlathe import Client\n{WAIT}")
        follow(reader)


WAIT = f"""
with Client() as client:
    end_s = time.monotonic() + {PATIENCE_S * 5}
    while not any(device.name == "local-onnxruntime-t1-fp32" for device in client.devices.list()):
        assert time.monotonic() < end_s
        time.sleep(0.5)
"""
