"""A whole service on Ray: jobs are taken while it starts, and run once it is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from whole_job import Service, until, upload

from hw_profiles.host_lock import LOCK_DIR_VARIABLE

pytestmark = pytest.mark.long
QUICK = {
    "methods": ["filter_prune"],
    "strategies": ["random"],
    "budget": {"evaluations": 4, "wall_s": 600, "finalists": 1},
    "training": {"epochs": 1, "augment": "none"},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("ray")
    found = Service(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOCK_DIR_VARIABLE, str(folder))
        patch.setenv("NETLATHE_EXECUTOR", "ray")
        found.start()
        try:
            yield found
        finally:
            found.end()


def executor(service: Service) -> Any:
    return service.client.get("/readyz").json()["executor"]


def test_the_api_takes_jobs_while_ray_starts(service: Service) -> None:
    assert executor(service) in ("down", "starting")
    upload(service)
    body = {"name": "early", "model": "stripes", "dataset": "stripes", "limits": {"max_macs_ratio": 0.9}, **QUICK}
    assert service.post("/jobs", json=body)["state"] in ("queued", "running")
    until(lambda: executor(service) == "ok", "Ray")
    assert service.ended("early")["state"] == "succeeded"
