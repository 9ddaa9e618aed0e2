"""A task of a third party is one file: two numbers read off an image; a job is trained, judged and shown by it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from whole_job import PATIENCE_S, ROOT, Service, agent, data_set, probed

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing
from compress.importing.normalise import load_network
from compress.task import Task
from compress.testing import TaskContract
from compress.training.fit import fit
from compress.training.recipe import Recipe
from hw_profiles.host_lock import LOCK_DIR_VARIABLE

TOY = """
import numpy as np

from compress.errors import InvalidInput
from compress.task import Task
from search.metric import Metric

METRIC = Metric("closeness", "%", "max", "Closeness", ".1f", factor=100.0, highest=1.0, order=12, scored=True)


class TwoNumbers(Task):
    name = "two_numbers"
    summary = "Read two numbers between 0 and 1 off an image."
    metric = "closeness"

    def targets(self, labels, images, part):
        if labels.values.shape != (images, 2) or labels.values.dtype.kind != "f":
            raise InvalidInput(labels.where, labels.values.shape, f"labels of {part} must be two floats an image")
        return labels.values.astype(np.float32)

    def check(self, outputs, scored, targets, model=None):
        if targets.shape != (2,):
            raise InvalidInput("dataset", list(targets.shape), "labels must be two floats an image")
        fitting = [name for name, shape in outputs.items() if shape == (2,)]
        if scored is not None and scored not in outputs:
            raise InvalidInput("output", scored, f"the network has {', '.join(outputs)}")
        if not fitting or scored not in (None, *fitting):
            raise InvalidInput("model", model, "no output of the model is two numbers")
        return scored or fitting[0]

    def score(self, outputs, targets):
        off = np.abs(outputs.reshape(len(outputs), 2) - targets).mean(axis=1)
        return np.clip(1.0 - 2.0 * off, 0.0, 1.0).astype(np.float64)

    def loss(self, outputs, targets, taught=None, reduction="mean"):
        import torch.nn.functional as F

        made, size = outputs.flatten(1), len(outputs) if reduction == "mean" else 1
        own = F.mse_loss(made, targets, reduction="sum") / size
        if taught is None:
            return own
        shown = F.mse_loss(made, taught.outputs.flatten(1), reduction="sum") / size
        return (1 - taught.alpha) * own + taught.alpha * shown

    def chance(self, targets, seen):
        return float(self.score(np.broadcast_to(seen.mean(axis=0), seen.shape), seen).mean())


TASK = TwoNumbers()
"""
SIDE, WIDTHS = 16, (4, 16, 32)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The toy as a distribution with two entry points on the path of this process and of its children."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_task.py").write_text(TOY)
    info = folder / "toy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    points = "[netlathe.tasks]\ntwo_numbers = toy_task:TASK\n[netlathe.metrics]\ncloseness = toy_task:METRIC\n"
    (info / "entry_points.txt").write_text(points)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder))
        yield folder


@pytest.fixture(scope="module")
def task(installed: Path) -> Task:
    found = import_module("toy_task").TASK
    assert isinstance(found, Task)
    return found


def images(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Waves in noise, (count, side, side, 1), and how strong those across and those down are."""
    rng = np.random.default_rng(seed)
    strengths = rng.uniform(0.0, 1.0, (count, 2)).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE]
    across, down = (np.sin(1.6 * along + rng.uniform(0, 2 * np.pi, (count, 1, 1))) for along in (x, y))
    waves = strengths[:, 0, None, None] * across + strengths[:, 1, None, None] * down
    noisy = 128 + 50 * waves + 4 * rng.standard_normal(waves.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)[..., None], strengths


def waves() -> bytes:
    parts = {"train": images(600, 1), "val": images(500, 2), "test": images(200, 3)}
    arrays: dict[str, NDArray[Any]] = {f"x_{name}": part[0] for name, part in parts.items()}
    arrays |= {f"y_{name}": part[1] for name, part in parts.items()}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def network(task: Task) -> bytes:
    """Three convolutions, a pool and a linear layer of two outputs, trained for a few seconds by the toy's loss."""
    rng = np.random.default_rng(0)
    nodes, constants = [], dict[str, NDArray[np.float32]]()
    read, inputs = "image", 1
    for i, width in enumerate(WIDTHS):
        kernel = rng.standard_normal((width, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        constants |= {f"w{i}": kernel.astype(np.float32), f"b{i}": np.zeros(width, np.float32)}
        nodes.append(helper.make_node("Conv", [read, f"w{i}", f"b{i}"], [f"a{i}"], f"conv{i}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"a{i}"], [f"r{i}"], f"relu{i}"))
        read, inputs = f"r{i}", width
    constants |= {"head": (0.1 * rng.standard_normal((2, inputs))).astype(np.float32), "bias": np.zeros(2, np.float32)}
    nodes.append(helper.make_node("GlobalAveragePool", [read], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"))
    nodes.append(helper.make_node("Gemm", ["flat", "head", "bias"], ["numbers"], "fc", transB=1))
    shown = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])]
    made = [helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["batch", 2])]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "waves", shown, made, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    recipe = Recipe(epochs=20, batch=32, lr=0.05, augment="none")
    start = load_network(model.SerializeToString())
    *_, last = fit(start, Part(*images(600, 1)), Preprocessing(), recipe, task=task)
    return last.network().save()


@pytest.fixture(scope="module")
def service(installed: Path, task: Task) -> Iterator[Service]:
    """A server on which the toy is installed, with a network and data for it, and stripes, which have classes."""
    found, threads = Service(installed / "data"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOCK_DIR_VARIABLE, str(installed))
        found.start()
        try:
            found.post("/models", data={"name": "waves"}, files={"file": ("waves.onnx", network(task))})
            found.post("/datasets", data={"name": "waves"}, files={"file": ("waves.npz", waves())})
            found.post("/datasets", data={"name": "stripes"}, files={"file": ("stripes.npz", data_set())})
            yield found
        finally:
            found.end()
            torch.set_num_threads(threads)


def body(name: str, **changes: Any) -> dict[str, Any]:
    """The smallest job."""
    asked = {
        "name": name,
        "task": "two_numbers",
        "model": "waves",
        "dataset": "waves",
        "limits": {"max_closeness_drop": 0.3},
        "strategies": ["random"],
        "budget": {"evaluations": 4, "wall_s": 600, "finalists": 1},
        "training": {"epochs": 1, "augment": "none"},
    }
    return asked | changes


def refused(service: Service, **changes: Any) -> tuple[str, str]:
    """Field and message of a job that is not taken."""
    answer = service.client.post("/api/v1/jobs", json=body("refused", **changes))
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    return error["field"], error["message"]


def artifact(service: Service, job: str, kind: str) -> bytes:
    (found,) = [item for item in service.get(f"/jobs/{job}/artifacts")["items"] if item["kind"] == kind]
    return service.client.get(f"/api/v1/artifacts/{found['id']}/content").content


def pages(service: Service, *paths: str) -> list[str]:
    """Pages as a browser sees them."""
    token = (service.data_dir / "user-token").read_text().strip()
    once = httpx.Limits(max_keepalive_connections=0)  # a busy server may close a connection between two requests
    with httpx.Client(base_url=service.client.base_url, timeout=PATIENCE_S, limits=once) as browser:
        assert browser.post("/api/v1/session", json={"token": token}).status_code == 201
        return [browser.get(path).text for path in paths]


def printed(service: Service, *words: str, plugin: bool) -> str:
    """What the command line says; `plugin`: the toy is installed where it runs, too."""
    environment = {**os.environ, "NETLATHE_URL": str(service.client.base_url)}
    environment["NETLATHE_TOKEN"] = (service.data_dir / "user-token").read_text().strip()
    environment["PYTHONPATH"] = environment["PYTHONPATH"] if plugin else ""
    command = [sys.executable, "-c", "from service.cli import run; import sys; sys.exit(run(sys.argv[1:]))", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


class TestTwoNumbers(TaskContract):
    labels = images(40, 5)[1]
    outputs = labels + np.random.default_rng(0).normal(0, 0.2, labels.shape).astype(np.float32)

    @pytest.fixture(autouse=True)
    def _installed(self, task: Task) -> None:
        type(self).task = task


def test_uploads_say_what_the_labels_are_and_jobs_are_checked_by_their_task(service: Service) -> None:
    data = service.get("/datasets/waves")
    assert (data["state"], data["classes"], data["target_shape"], data["validation_count"]) == ("ready", 0, [2], 500)
    catalogue = service.get("/catalogue")
    assert [(each["name"], each["metric"]) for each in catalogue["tasks"]] == [
        ("classification", "accuracy"),
        ("two_numbers", "closeness"),
    ]
    assert {"max_closeness_drop", "min_closeness"} <= set(catalogue["limits"])

    assert refused(service, task="poetry") == ("task", "must be one of classification, two_numbers")
    by_class = refused(service, task="classification", limits={})
    assert by_class == ("dataset", "labels of train must be one class number per image")
    assert refused(service, dataset="stripes") == ("dataset", "labels must be two floats an image")
    field, message = refused(service, limits={"max_accuracy_drop": 0.1})
    assert (field, message) == (
        "limits.max_accuracy_drop",
        "the task two_numbers is judged by closeness, not by accuracy",
    )
    assert refused(service, metric="accuracy") == ("metric", "must be closeness")
    shifted = refused(service, training={"epochs": 1, "augment": "crop"})
    assert shifted == ("training.augment", "the task two_numbers allows none, or auto")


def test_a_network_of_a_foreign_task_is_cut_trained_judged_and_shown(
    service: Service, task: Task, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with agent(service, tmp_path_factory.mktemp("agent") / "state") as device:
        service.post(f"/devices/{device}/table", json=probed())
        service.post("/jobs", json=body("first", targets=[{"device": device, "max_latency_ratio": 0.85}]))
        job = service.ended("first")
    assert (job["state"], job["verdict"], job["failure"]) == ("succeeded", "met", None)
    assert (job["task"], job["metric"], job["objective"]) == (
        "two_numbers",
        "closeness",
        {"metric": "closeness", "goal": "max"},
    )
    original, control, best = (job[slot] for slot in ("original", "control", "best"))
    assert original["closeness"] > 0.65, "guessing gets 0.5"
    assert best["closeness"] >= control["closeness"] - 0.3
    assert best["closeness_drop"]["mean"] == pytest.approx(control["closeness"] - best["closeness"], abs=1e-9)
    assert best["closeness_interval"]["low"] < best["closeness"] < best["closeness_interval"]["high"]
    assert best["macs"] < original["macs"]
    assert best["accuracy"] is None
    searched = [row["metrics"] for row in service.evaluations("first") if row["fidelity"] == "F2"]
    assert len(searched) == 4
    assert all(0.0 <= row["closeness"] <= 1.0 and "accuracy" not in row for row in searched)
    assert any(row["on_front"] for row in service.evaluations("first"))

    # The file does what the job says of it.
    running = onnxruntime.InferenceSession(artifact(service, "first", "onnx"), providers=["CPUExecutionProvider"])
    shown, strengths = images(200, 3)
    (made,) = running.run(None, {"image": (shown.transpose(0, 3, 1, 2) / 255).astype(np.float32)})
    assert task.score(made, strengths).mean() == pytest.approx(best["test_closeness"], abs=1e-4)
    assert onnx.load_model_from_string(artifact(service, "first", "onnx")).graph.output[0].name == "numbers"

    value, test = f"{100 * best['closeness']:.1f} %", f"{100 * best['test_closeness']:.1f} %"
    report = artifact(service, "first", "report_html").decode()
    assert "<th>closeness</th><th>test closeness</th>" in report
    assert value in report
    assert test in report
    assert "Closeness against latency" in report
    assert "ccuracy" not in report
    known = json.loads(artifact(service, "first", "report_json"))
    assert known["recheck"]["closeness"] == pytest.approx(best["closeness"], abs=1e-4)
    page, listed = pages(service, "/jobs/first", "/jobs")
    assert '<th class="number">Closeness</th><th class="number">Test closeness</th>' in page
    assert f"<strong>{value}</strong>" in page
    assert f'<td class="number">{test}</td>' in page
    assert 'data-score="closeness"' in page
    assert "ccuracy" not in page
    assert value in listed
    for plugin in (True, False):
        table = printed(service, "show", "first", plugin=plugin)
        assert "closeness" in table
        assert f"{best['closeness']:.4f}" in table
        assert f"{best['test_closeness']:.4f}" in table
        assert "accuracy" not in table
    assert "two_numbers" in printed(service, "show", "first", "--json", plugin=False)


def test_the_command_line_asks_for_the_task(service: Service) -> None:
    assert "--task" in printed(service, "submit", "--help", plugin=False)
    words = ("--model", "waves", "--data", "waves", "--task", "two_numbers", "--name", "asked", "--limit")
    said = printed(service, "submit", *words, "max_closeness_drop=0.2", "--evaluations", "1", plugin=False)
    assert "asked" in said
    assert service.get("/jobs/asked")["limits"] == {"max_closeness_drop": 0.2}
    service.post("/jobs/asked/cancel")
