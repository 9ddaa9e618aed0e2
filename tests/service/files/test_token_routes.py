"""Tokens: kinds kept apart, shown once, revoked at once, nowhere in the clear; sessions of browsers."""

from __future__ import annotations

import logging
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_world import HandClock
from sqlalchemy.exc import IntegrityError

from service.files.first_user import ensure_user_token, sign_in_code
from service.files.secret_values import new_secret, read_user_token
from service.http.security import COOKIE
from service.settings import Settings
from service.store import Store, tokens

TOKENS = "/api/v1/tokens"
SESSION = "/api/v1/session"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def add_token(store: Store, kind: tokens.Kind, name: str = "other") -> str:
    secret = new_secret(kind)
    with store.begin() as tx:
        tokens.create(tx, kind, name, secret, agent_id="agt_1" if kind == "agent" else None)
    return secret


def test_a_token_is_made_shown_once_and_revoked(client: TestClient) -> None:
    made = client.post(TOKENS, json={"kind": "user", "name": "ci"})
    assert made.status_code == 201
    secret = made.json()["token"]
    assert secret.startswith("nl_u_")
    listed = client.get(TOKENS).json()
    assert {token["name"] for token in listed["items"]} == {"tester", "ci"}
    assert secret not in str(listed)
    assert client.get("/api/v1/jobs", headers=bearer(secret)).status_code == 200
    assert client.delete(f"{TOKENS}/{made.json()['id']}").status_code == 204
    assert client.get("/api/v1/jobs", headers=bearer(secret)).status_code == 401
    assert client.delete(f"{TOKENS}/{made.json()['id']}").status_code == 404


def test_tokens_come_in_pages_in_the_order_asked_for(client: TestClient, clock: HandClock) -> None:
    soon = (clock.now + timedelta(seconds=60)).isoformat()
    for name, expires_at in (("zeta", None), ("alpha", None), ("guest", soon)):
        clock.advance(1)
        body = {"kind": "user", "name": name, "expires_at": expires_at}
        assert client.post(TOKENS, json=body).status_code == 201

    def page(**query: Any) -> tuple[list[str], int]:
        found = client.get(TOKENS, params=query).json()
        assert (found["page"], found["page_size"]) == (query.get("page", 1), query.get("page_size", 50))
        return [item["name"] for item in found["items"]], found["total"]

    assert page() == (["tester", "zeta", "alpha", "guest"], 4)
    assert page(sort="-name", page_size=2) == (["zeta", "tester"], 4)
    assert page(page=2, page_size=3) == (["guest"], 4)
    clock.advance(60)  # what has expired counts no more
    assert page(sort="name") == (["alpha", "tester", "zeta"], 3)
    assert client.get(TOKENS, params={"sort": "sha256"}).status_code == 422


def test_a_token_of_the_past_is_refused_and_one_with_an_end_ends(client: TestClient, clock: HandClock) -> None:
    past = (clock.now - timedelta(seconds=1)).isoformat()
    refused = client.post(TOKENS, json={"kind": "user", "name": "late", "expires_at": past})
    assert refused.json()["errors"][0]["field"] == "expires_at"
    soon = (clock.now + timedelta(seconds=60)).isoformat()
    secret = client.post(TOKENS, json={"kind": "user", "name": "guest", "expires_at": soon}).json()["token"]
    assert client.get("/api/v1/jobs", headers=bearer(secret)).status_code == 200
    clock.advance(60)
    assert client.get("/api/v1/jobs", headers=bearer(secret)).status_code == 401


def test_names_are_unique_per_kind(client: TestClient) -> None:
    assert client.post(TOKENS, json={"kind": "enrolment", "name": "tester"}).status_code == 201
    again = client.post(TOKENS, json={"kind": "user", "name": "tester"})
    assert (again.status_code, again.json()["code"]) == (409, "name")


@pytest.mark.parametrize("kind", ["agent", "enrolment", "sign_in"])
def test_only_a_users_token_opens_the_users_routes(anonymous: TestClient, store: Store, kind: tokens.Kind) -> None:
    headers = bearer(add_token(store, kind))
    for method, path in (("GET", "/api/v1/jobs"), ("GET", TOKENS), ("POST", TOKENS), ("GET", "/api/v1/events.json")):
        answer = anonymous.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) in {(403, "token_kind"), (422, "invalid")}, path
    assert anonymous.get("/api/v1/jobs", headers=headers).status_code == 403


def test_nobody_and_nonsense_are_not_let_in(anonymous: TestClient) -> None:
    for headers in ({}, bearer("nl_u_guess"), {"Authorization": "Basic dGVzdA=="}, {"Authorization": "Bearer "}):
        answer = anonymous.get("/api/v1/jobs", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_every_route_but_health_and_sign_in_wants_a_token(anonymous: TestClient) -> None:
    open_routes = {"/healthz", "/readyz", "/metrics", SESSION}
    document = anonymous.get("/api/v1/openapi.json").json()
    asked = 0
    for path, operations in document["paths"].items():
        for method in operations:
            if path in open_routes:
                continue
            answer = anonymous.request(method.upper(), path.replace("{", "").replace("}", ""))
            assert answer.status_code == 401, (method, path, answer.status_code)
            asked += 1
    assert asked > 15


def test_no_secret_is_in_the_database_or_in_a_log(
    client: TestClient, store: Store, settings: Settings, user_token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = client.post(TOKENS, json={"kind": "user", "name": "ci"}, headers={"Idempotency-Key": "k"}).json()["token"]
    cookie = client.post(SESSION, json={"token": secret}).cookies[COOKIE]
    client.get("/api/v1/jobs", headers=bearer("nl_u_wrong"))
    client.get("/api/v1/nothing", headers=bearer(secret))
    store.engine.dispose()
    files = b"".join(path.read_bytes() for path in settings.data_dir.glob("netlathe.db*"))
    for hidden in (secret, cookie, user_token):
        assert hidden.encode() not in files
        assert hidden not in caplog.text


def test_a_browser_signs_in_with_a_token_and_out(anonymous: TestClient, user_token: str) -> None:
    answer = anonymous.post(SESSION, json={"token": user_token})
    assert (answer.status_code, answer.json()) == (201, {"name": "tester"})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie  # plain HTTP on loopback
    assert anonymous.get("/api/v1/jobs").status_code == 200
    origin = {"Origin": "http://127.0.0.1"}
    assert anonymous.delete(SESSION, headers=origin).status_code == 204
    assert anonymous.get("/api/v1/jobs").status_code == 401


def test_a_session_ends_with_its_token_and_with_its_time(
    anonymous: TestClient, store: Store, settings: Settings, clock: HandClock
) -> None:
    secret = add_token(store, "user")
    anonymous.post(SESSION, json={"token": secret})
    clock.advance(settings.session_days * 86400 - 1)
    assert anonymous.get("/api/v1/jobs").status_code == 200
    clock.advance(1)
    assert anonymous.get("/api/v1/jobs").status_code == 401
    anonymous.cookies.clear()
    anonymous.post(SESSION, json={"token": secret})
    with store.begin() as tx:
        tokens.revoke(tx, tokens.find(tx, secret).id)
    assert anonymous.get("/api/v1/jobs").status_code == 401


def test_a_sign_in_code_works_once_and_for_an_hour(
    anonymous: TestClient, store: Store, settings: Settings, clock: HandClock
) -> None:
    ensure_user_token(store, settings)
    code = sign_in_code(store, settings)
    assert anonymous.post(SESSION, json={"code": code}).json() == {"name": "owner"}
    anonymous.cookies.clear()
    again = anonymous.post(SESSION, json={"code": code})
    assert (again.status_code, again.json()["code"]) == (401, "token_used")
    late = sign_in_code(store, settings)
    clock.advance(settings.sign_in_minutes * 60)
    assert anonymous.post(SESSION, json={"code": late}).status_code == 401


@pytest.mark.parametrize("kind", ["agent", "enrolment", "sign_in"])
def test_only_a_users_token_signs_in(anonymous: TestClient, store: Store, kind: tokens.Kind) -> None:
    assert anonymous.post(SESSION, json={"token": add_token(store, kind)}).status_code == 401


def test_a_sign_in_needs_one_thing_and_does_not_echo_it(anonymous: TestClient) -> None:
    for body in ({}, {"code": "nl_c_x", "token": "nl_u_secret"}):
        answer = anonymous.post(SESSION, json=body)
        assert answer.status_code == 422
        assert "nl_u_secret" not in answer.text


def test_the_first_users_token_is_a_private_file_and_stays(store: Store, settings: Settings) -> None:
    ensure_user_token(store, settings)
    first = read_user_token(settings.user_token_path)
    assert stat.S_IMODE(settings.user_token_path.stat().st_mode) == 0o600
    ensure_user_token(store, settings)
    assert read_user_token(settings.user_token_path) == first
    with store.begin() as tx:
        assert tokens.find(tx, first).name == "owner"
        tokens.revoke(tx, tokens.find(tx, first).id)
    ensure_user_token(store, settings)  # a new database on an old folder
    with store.read() as tx:
        assert tokens.find(tx, first).kind == "user"
    assert [path.name for path in Path(settings.data_dir).iterdir() if path.name.startswith(".")] == []


def test_two_servers_that_start_together_share_the_first_users_token(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = tokens.create, []

    def create(*args: Any, **more: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise IntegrityError("INSERT", {}, Exception("the other server was faster"))
        return real(*args, **more)

    monkeypatch.setattr(tokens, "create", create)
    ensure_user_token(store, settings)
    with store.read() as tx:
        assert tokens.find(tx, read_user_token(settings.user_token_path)).name == "owner"


def test_a_token_is_revoked_by_its_name_where_that_says_which(client: TestClient) -> None:
    for kind, name in (("user", "ci"), ("enrolment", "ci"), ("user", "laptop")):
        assert client.post("/api/v1/tokens", json={"kind": kind, "name": name}).status_code == 201
    assert client.delete("/api/v1/tokens/laptop").status_code == 204
    assert client.delete("/api/v1/tokens/laptop").status_code == 404
    both = client.delete("/api/v1/tokens/ci")
    assert (both.status_code, both.json()["code"]) == (409, "ambiguous")
    names = [item["name"] for item in client.get("/api/v1/tokens").json()["items"]]
    assert names.count("ci") == 2
    assert "laptop" not in names


def test_odd_input_is_answered_not_broken_by(client: TestClient) -> None:
    """A date that no database has in UTC; half a surrogate pair that cannot be echoed."""
    late = {"kind": "user", "name": "late", "expires_at": "9999-12-31T23:59:59-14:00"}
    assert client.post("/api/v1/tokens", json=late).status_code == 422
    half = client.post("/api/v1/tokens", content=b'{"kind": "user", "name": "\\ud800"}')
    assert half.status_code in (400, 422)
    assert half.json()["status"] == half.status_code
