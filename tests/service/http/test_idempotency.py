"""A POST with an Idempotency-Key makes its thing once, whoever repeats it and whenever."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from fastapi.testclient import TestClient
from pydantic import BaseModel
from service_world import HandClock, Uploaded

from service.http.idempotency import Once
from service.store.engine import Store
from service.testing import at_once

JOBS = "/api/v1/jobs"
BODY = {"model": "net", "dataset": "digits"}
KEY = {"Idempotency-Key": "a-key"}


def test_twenty_at_once_make_one_job(client: TestClient, uploaded: Uploaded) -> None:
    answers = at_once(20, lambda _index: client.post(JOBS, json=BODY, headers=KEY))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert client.get(JOBS).json()["total"] == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


def test_a_repetition_gets_the_same_answer_even_after_a_change(client: TestClient, uploaded: Uploaded) -> None:
    first = client.post(JOBS, json=BODY, headers=KEY)
    client.post(f"{JOBS}/{first.json()['id']}/cancel")
    again = client.post(JOBS, json={"dataset": "digits", "model": "net"}, headers=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["location"] == first.headers["location"]


def test_another_body_or_route_under_the_same_key_is_a_conflict(client: TestClient, uploaded: Uploaded) -> None:
    first = client.post(JOBS, json=BODY, headers=KEY).json()
    client.post(f"{JOBS}/{first['id']}/cancel")
    for path, body in ((JOBS, {**BODY, "seed": 1}), (f"{JOBS}/{first['id']}/retry", None)):
        answer = client.post(path, json=body, headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key")


def test_a_key_outlives_a_new_optional_field(store: Store, tmp_path: Path) -> None:
    class Body(BaseModel):
        name: str

    class Later(Body):
        goal: str | None = None

    once = Once(store, "tok_1", "a-key", JOBS, timedelta(days=7), tmp_path / "key")
    assert once._fingerprint(Body(name="a")) == once._fingerprint(Later(name="a"))
    assert once._fingerprint(Later(name="a")) != once._fingerprint(Later(name="a", goal="max"))


def test_keys_are_per_token_and_kept_for_a_week(client: TestClient, uploaded: Uploaded, clock: HandClock) -> None:
    first = client.post(JOBS, json=BODY, headers=KEY).json()["id"]
    other = client.post("/api/v1/tokens", json={"kind": "user", "name": "other"}).json()["token"]
    others = client.post(JOBS, json=BODY, headers={**KEY, "Authorization": f"Bearer {other}"}).json()["id"]
    assert others != first
    clock.advance(7 * 86400 - 1)
    assert client.post(JOBS, json=BODY, headers=KEY).json()["id"] == first
    clock.advance(2)
    assert client.post(JOBS, json=BODY, headers=KEY).json()["id"] not in (first, others)


def test_what_failed_may_be_tried_again_with_the_key(client: TestClient, uploaded: Uploaded) -> None:
    wrong = client.post(JOBS, json={**BODY, "name": "taken"})
    assert wrong.status_code == 201
    assert client.post(JOBS, json={**BODY, "name": "taken"}, headers=KEY).status_code == 409
    client.post(f"{JOBS}/taken/cancel")
    client.delete(f"{JOBS}/taken")
    assert client.post(JOBS, json={**BODY, "name": "taken"}, headers=KEY).status_code == 201


def test_a_repeated_token_shows_the_same_secret(client: TestClient) -> None:
    body = {"kind": "user", "name": "ci"}
    first, again = (client.post("/api/v1/tokens", json=body, headers=KEY) for _ in range(2))
    assert first.json() == again.json()
    secret = first.json()["token"]
    assert client.get(JOBS, headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    other = client.post("/api/v1/tokens", json={**body, "name": "ci-2"}, headers={"Idempotency-Key": "b"})
    assert other.json()["token"] != secret


def test_a_key_has_a_length(client: TestClient, uploaded: Uploaded) -> None:
    answer = client.post(JOBS, json=BODY, headers={"Idempotency-Key": "k" * 256})
    assert answer.status_code == 422
