"""What happened to each layer: the result's by default, any finalist's by its evaluation, else why there is none."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from layer_reports import FINALISTS, ended_job
from service_world import Uploaded

from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store


@pytest.fixture
def ended(store: Store, settings: Settings, uploaded: Uploaded) -> str:
    return ended_job(store, Blobs(settings.data_dir), uploaded)


def evaluation_ids(client: TestClient, job: str) -> dict[str, str]:
    items = client.get(f"/api/v1/jobs/{job}/evaluations").json()["items"]
    return dict(zip(("c0", "c1", "c2", "c0-timed", "c1-timed"), (item["id"] for item in items), strict=True))


def test_the_layers_of_the_result_are_the_ones_given(client: TestClient, ended: str) -> None:
    answer = client.get(f"/api/v1/jobs/{ended}/layers")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "evaluation_id": client.get(f"/api/v1/jobs/{ended}").json()["best"]["evaluation_id"],
        "strategy": "greedy",
        "items": FINALISTS[1]["layers"],
    }


@pytest.mark.parametrize("name", ["c0", "c0-timed"])
def test_another_finalist_is_named_by_any_of_its_evaluations(client: TestClient, ended: str, name: str) -> None:
    ids = evaluation_ids(client, ended)
    found = client.get(f"/api/v1/jobs/{ended}/layers", params={"evaluation": ids[name]}).json()
    assert (found["evaluation_id"], found["strategy"]) == (ids["c0-timed"], "tpe")
    assert found["items"] == FINALISTS[0]["layers"]


def refused(client: TestClient, job: str, **query: str) -> tuple[int, str]:
    answer = client.get(f"/api/v1/jobs/{job}/layers", params=query)
    return answer.status_code, answer.json()["detail"]


def test_an_evaluation_that_is_no_finalist_is_refused_in_words(client: TestClient, ended: str) -> None:
    ids = evaluation_ids(client, ended)
    told = f"evaluation {ids['c2']} is no finalist; the finalists are {ids['c1-timed']}, {ids['c0-timed']}"
    assert refused(client, ended, evaluation=ids["c2"]) == (409, told)
    assert refused(client, ended, evaluation="evl_x") == (404, "there is no evaluation of this job 'evl_x'")
    assert refused(client, "gone")[0] == 404


def test_a_job_that_runs_or_waits_has_no_layers_yet(client: TestClient, queued: str) -> None:
    name = client.get(f"/api/v1/jobs/{queued}").json()["name"]
    assert refused(client, queued) == (409, f"job {name} is queued; its layers are known when it has ended")


@pytest.mark.parametrize("finalists", [[], [{"candidate": "c1", "strategy": "greedy"}]])
def test_a_report_without_layers_says_so(
    client: TestClient, store: Store, settings: Settings, uploaded: Uploaded, finalists: list[dict[str, Any]]
) -> None:
    job = ended_job(store, Blobs(settings.data_dir), uploaded, finalists)
    status, told = refused(client, job)
    assert status == 409
    assert told.endswith("kept no layers" if finalists else "ended before any network was judged")


@pytest.mark.parametrize("candidate", ["c2", None])
def test_a_job_that_ended_early_has_the_layers_of_its_nearest_network(
    client: TestClient, store: Store, settings: Settings, uploaded: Uploaded, candidate: str | None
) -> None:
    untrained = {"candidate": candidate, "strategy": candidate and "tpe", "layers": FINALISTS[0]["layers"]}
    job = ended_job(store, Blobs(settings.data_dir), uploaded, [], untrained)
    ids = evaluation_ids(client, job)
    found = client.get(f"/api/v1/jobs/{job}/layers").json()
    assert found["evaluation_id"] == (None if candidate is None else ids[candidate])
    assert found["items"] == FINALISTS[0]["layers"]
    if candidate is None:
        told = f"evaluation {ids['c2']} is no finalist; the nearest network was not evaluated"
        assert refused(client, job, evaluation=ids["c2"]) == (409, told)
    else:
        assert client.get(f"/api/v1/jobs/{job}/layers", params={"evaluation": ids["c2"]}).json() == found
