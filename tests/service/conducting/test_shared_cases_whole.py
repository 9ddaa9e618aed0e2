"""Whole jobs on shared cases, through every process, to a verdict and the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from shared_cases import PIXELS, content
from whole_job import PATIENCE_S, Service, agent, probed

from hw_profiles.host_lock import LOCK_DIR_VARIABLE

pytestmark = [pytest.mark.long, pytest.mark.shared]


@dataclass(frozen=True)
class Case:
    """A network, and what is wanted of it. `ratio`: of the original's latency; `lost`: accuracy that may be lost."""

    model: str
    ratio: float
    lost: float
    data: str = "plain.npz"
    method: str = "filter_prune"


CASES = [
    Case("dead-channels", 0.9, 0.1),
    Case("half-weights", 0.9, 0.1),
    Case("pixelshuffle", 0.94, 0.2),
    Case("gru-head", 0.985, 0.2),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("cases")
    found = Service(folder / "data")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOCK_DIR_VARIABLE, str(folder))
        found.start()
        try:
            found.post("/datasets", data={"name": "plain.npz"}, files={"file": ("plain.npz", content("plain.npz"))})
            yield found
        finally:
            found.end()
            torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def device(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with agent(service, tmp_path_factory.mktemp("agent") / "state") as name:
        service.post(f"/devices/{name}/table", json=probed())
        yield name


def submitted(service: Service, case: Case, device: str) -> Any:
    """A small job on the case."""
    file = {"file": (f"{case.model}.onnx", content(f"{case.model}.onnx"))}
    service.post("/models", data={"name": case.model, "preprocessing": PIXELS}, files=file)
    body = {
        "name": case.model,
        "model": case.model,
        "dataset": case.data,
        "targets": [{"device": device, "max_latency_ratio": case.ratio}],
        "limits": {"max_accuracy_drop": case.lost},
        "methods": [case.method],
        "strategies": ["random"],
        "budget": {"evaluations": 8, "wall_s": 900, "finalists": 1},
    }
    return service.post("/jobs", json=body)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model)
def test_a_job_meets_its_limits_with_a_network_that_knows(service: Service, device: str, case: Case) -> None:
    submitted(service, case, device)
    job = service.ended(case.model, 5 * PATIENCE_S)
    assert (job["state"], job["verdict"], job["failure"]) == ("succeeded", "met", None)
    original, control, best = job["original"], job["control"], job["best"]
    assert control["accuracy"] >= original["accuracy"] - 0.1, "a control that training ruined says nothing"
    assert best["accuracy"] >= original["accuracy"] - case.lost - 0.1
    assert best["test_accuracy"] >= best["accuracy"] - 0.1
    assert best["macs"] < original["macs"]
    assert {item["kind"] for item in service.get(f"/jobs/{case.model}/artifacts")["items"]} >= {"onnx", "report_json"}
