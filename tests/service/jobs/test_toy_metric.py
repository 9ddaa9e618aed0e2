"""A metric of a third party is one file: limited, estimated, counted and shown everywhere, without a line of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import onnx
import pytest
import torch
from whole_job import PATIENCE_S, ROOT, Service, upload

from hw_profiles.host_lock import LOCK_DIR_VARIABLE

TOY = """
from compress.counting.count import Count
from search.metric import Metric

def of_node(node, network, cost):
    return float(network.constants[node.input(1)].shape[0]) if node.op_type == "Conv" else 0.0

METRIC = Metric("channels", "", "min", "Channels of convolutions", ",.0f", counter="toy_metric:COUNT",
                lowered_by=("filter_prune",))
COUNT = Count(lambda form: sum(of_node(node, form.final, None) for node in form.final.nodes), of_node)
"""
ORIGINAL = 4 + 16 + 32
"""Channels of the network of `whole_job`."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server on which the toy is installed as a distribution with one entry point; its children find it too."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_metric.py").write_text(TOY)
    info = folder / "toy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[netlathe.metrics]\nchannels = toy_metric:METRIC\n")
    found, threads = Service(folder / "data"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv(LOCK_DIR_VARIABLE, str(folder))
        found.start()
        try:
            upload(found)
            yield found
        finally:
            found.end()
            torch.set_num_threads(threads)


def submit(service: Service, name: str, **limits: float) -> Any:
    """The job under these limits, once it has ended."""
    body = {
        "name": name,
        "model": "stripes",
        "dataset": "stripes",
        "limits": {"max_accuracy_drop": 0.5, **limits},
        "strategies": ["random"],
        "budget": {"evaluations": 4, "wall_s": 600, "finalists": 1},
        "training": {"epochs": 1, "augment": "none"},
    }
    service.post("/jobs", json=body)
    return service.ended(name)


def artifact(service: Service, job: str, kind: str) -> bytes:
    (found,) = [item for item in service.get(f"/jobs/{job}/artifacts")["items"] if item["kind"] == kind]
    return service.client.get(f"/api/v1/artifacts/{found['id']}/content").content


def page(service: Service, job: str) -> str:
    """The job's page as a browser sees it."""
    token = (service.data_dir / "user-token").read_text().strip()
    once = httpx.Limits(max_keepalive_connections=0)  # a busy server may close a connection between two requests
    with httpx.Client(base_url=service.client.base_url, timeout=PATIENCE_S, limits=once) as browser:
        assert browser.post("/api/v1/session", json={"token": token}).status_code == 201
        return browser.get(f"/jobs/{job}").text


def printed(service: Service, *words: str, plugin: bool) -> str:
    """What the command line says; `plugin`: the toy is installed where it runs, too."""
    environment = {**os.environ, "NETLATHE_URL": str(service.client.base_url)}
    environment["NETLATHE_TOKEN"] = (service.data_dir / "user-token").read_text().strip()
    environment["PYTHONPATH"] = environment["PYTHONPATH"] if plugin else ""
    command = [sys.executable, "-c", "from service.cli import run; import sys; sys.exit(run(sys.argv[1:]))", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_metric_of_a_third_party_is_limited_and_shown_everywhere(service: Service) -> None:
    catalogue = service.get("/catalogue")
    assert "channels" in [metric["name"] for metric in catalogue["metrics"]]
    assert {"max_channels", "max_channels_ratio"} <= set(catalogue["limits"])

    job = submit(service, "fewer", max_channels_ratio=0.75)
    assert (job["state"], job["verdict"], job["failure"]) == ("succeeded", "met", None)
    best, original = job["best"]["metrics"]["channels"], job["original"]["metrics"]["channels"]
    assert original == ORIGINAL
    assert best <= 0.75 * ORIGINAL
    graph = onnx.load_model_from_string(artifact(service, "fewer", "onnx")).graph
    shapes = {tensor.name: tensor.dims for tensor in graph.initializer}
    assert best == sum(shapes[node.input[1]][0] for node in graph.node if node.op_type == "Conv")

    searched = [row["metrics"] for row in service.evaluations("fewer") if row["fidelity"] == "F2"]
    assert searched
    assert all(row["channels"] <= 0.75 * ORIGINAL for row in searched), "estimates are held against the limit"

    shown = page(service, "fewer")
    assert shown.count("Channels of convolutions") >= 2
    assert f'<td class="number">{best:.0f}</td>' in shown
    report = artifact(service, "fewer", "report_html").decode()
    assert "<th>Channels of convolutions</th>" in report
    assert f"<td>{best:.0f}</td>" in report
    known = json.loads(artifact(service, "fewer", "report_json"))
    assert known["limits"]["max_channels_ratio"] == 0.75
    assert [known["summaries"][slot]["channels"] for slot in ("original", "best")] == [original, best]
    assert best in [finalist["counts"]["channels"] for finalist in known["finalists"]]
    for plugin in (True, False):
        table = printed(service, "show", "fewer", plugin=plugin)
        assert "channels" in table
        assert f"{best:.0f}" in table.split()
    told = json.loads(printed(service, "show", "fewer", "--json", plugin=False))
    assert told["best"]["metrics"]["channels"] == best


def test_a_limit_on_it_that_nothing_can_meet_is_missed(service: Service) -> None:
    job = submit(service, "none", max_channels=2)
    assert (job["state"], job["verdict"], job["best"]) == ("succeeded", "missed", None)
    assert job["nearest"]["metrics"]["channels"] > 2


def test_it_can_be_the_objective(service: Service) -> None:
    wanted = {
        "name": "least",
        "model": "stripes",
        "dataset": "stripes",
        "objective": {"metric": "channels"},
        "limits": {"max_accuracy_drop": 0.1},
        "strategies": ["bisection"],
    }
    refused = service.client.post("/api/v1/jobs", json=wanted | {"methods": ["weight_prune"]})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "objective.metric"), refused.text
    job = service.post("/jobs", json=wanted | {"methods": ["filter_prune", "weight_prune"]})
    assert job["objective"] == {"metric": "channels", "goal": "min"}
    assert "least channels" in printed(service, "show", "least", plugin=False)
    shown = page(service, "least")
    assert "objective: the smallest channels" in shown
    assert 'data-objective="channels"' in shown
    service.post("/jobs/least/cancel")
