"""A request says nothing that its route does not read: no unknown query parameter, no body where none is read."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_world import Uploaded

JOBS = "/api/v1/jobs"


@pytest.fixture
def job(client: TestClient, uploaded: Uploaded) -> str:
    return str(client.post(JOBS, json={"model": "net", "dataset": "digits", "targets": []}).json()["id"])


def errors(answer: Any) -> list[tuple[str, Any]]:
    assert answer.status_code == 422, answer.text
    return [(error["field"], error["value"]) for error in answer.json()["errors"]]


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry"])
def test_a_body_that_is_not_read_is_refused_by_its_keys(verb: str, client: TestClient, job: str) -> None:
    answer = client.post(f"{JOBS}/{job}/{verb}", json={"budget": {"evaluations": 5}, "seed": 3})
    assert errors(answer) == [("budget", None), ("seed", 3)]
    assert "takes no body" in answer.json()["detail"]
    assert client.get(f"{JOBS}/{job}").json()["state"] == "queued"
    assert client.get(JOBS).json()["total"] == 1


@pytest.mark.parametrize("content", [b"[1]", b"5", b"budget=5", b"\xff"])
def test_a_body_of_another_kind_is_refused_too(content: bytes, client: TestClient, job: str) -> None:
    answer = client.post(f"{JOBS}/{job}/cancel", content=content)
    assert [field for field, _ in errors(answer)] == ["body"]


@pytest.mark.parametrize("content", [b"", b"{}", b" {} \n", b"null"])
def test_an_empty_body_is_none(content: bytes, client: TestClient, job: str) -> None:
    assert client.post(f"{JOBS}/{job}/cancel", content=content).json()["state"] == "cancelled"


def test_an_agent_is_not_drained_with_a_body(client: TestClient) -> None:
    assert errors(client.post("/api/v1/agents/agt_1/drain", json={"grace_s": 5})) == [("grace_s", 5)]


@pytest.mark.parametrize(
    ("path", "field", "known"),
    [
        (f"{JOBS}?status=running", "status", "state"),
        (f"{JOBS}?page=1&per_page=5", "per_page", "page_size"),
        ("/api/v1/devices?kind=gpu", "kind", "sort"),
        ("/api/v1/events.json?topics=jobs&after=3", "after", "since"),
        ("/api/v1/catalogue?x=1", "x", "none"),
    ],
)
def test_an_unknown_query_parameter_is_refused_by_its_name(
    path: str, field: str, known: str, client: TestClient
) -> None:
    answer = client.get(path)
    assert errors(answer) == [(field, path.rsplit("=", 1)[1])]
    assert known in answer.json()["detail"]


def test_probes_and_pages_may_carry_any_query(anonymous: TestClient) -> None:
    assert anonymous.get("/healthz?nocache=1").status_code == 200
    assert anonymous.get("/sign-in?from=mail").status_code == 200
