"""Host, Origin, bodies and headers: what every request passes before a route sees it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.app import create_app
from service.http.security import COOKIE
from service.settings import Settings
from service.store import Store

JOBS = "/api/v1/jobs"


def client_of(settings: Settings, store: Store, base_url: str = "http://127.0.0.1") -> TestClient:
    return TestClient(create_app(settings, store), base_url=base_url, raise_server_exceptions=False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:9", "LOCALHOST:80"])
def test_loopback_names_are_answered(anonymous: TestClient, host: str) -> None:
    assert anonymous.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "127.0.0.2"])
def test_a_foreign_host_is_refused_on_loopback(anonymous: TestClient, host: str) -> None:
    answer = anonymous.get("/healthz", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "host")


def test_off_loopback_only_a_configured_list_is_enforced(settings: Settings, store: Store) -> None:
    wide = settings.model_copy(update={"host": "0.0.0.0", "insecure": True})
    assert client_of(wide, store).get("/healthz", headers={"Host": "any.example"}).status_code == 200
    listed = wide.model_copy(update={"allowed_hosts": ("lathe.example",)})
    assert client_of(listed, store).get("/healthz", headers={"Host": "lathe.example:8"}).status_code == 200
    assert client_of(listed, store).get("/healthz", headers={"Host": "any.example"}).status_code == 400


class TestOrigin:
    @pytest.fixture
    def browser(self, anonymous: TestClient, user_token: str) -> TestClient:
        anonymous.post("/api/v1/session", json={"token": user_token})
        assert COOKIE in anonymous.cookies
        return anonymous

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
    def test_a_write_from_a_foreign_page_is_refused(self, browser: TestClient, origin: str) -> None:
        answer = browser.post(JOBS, json={}, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin")

    def test_a_write_with_the_cookie_names_its_origin(self, browser: TestClient) -> None:
        assert browser.post(JOBS, json={}).json()["code"] == "origin"

    def test_our_own_pages_write(self, browser: TestClient) -> None:
        assert browser.post(JOBS, json={}, headers={"Origin": "http://127.0.0.1"}).status_code == 422

    def test_reading_needs_no_origin(self, browser: TestClient) -> None:
        assert browser.get(JOBS).status_code == 200

    def test_a_token_is_no_cookie(self, client: TestClient) -> None:
        assert client.post(JOBS, json={}).status_code == 422

    def test_a_foreign_page_cannot_sign_in(self, anonymous: TestClient, user_token: str) -> None:
        headers = {"Origin": "http://evil.example"}
        assert anonymous.post("/api/v1/session", json={"token": user_token}, headers=headers).status_code == 403


class TestBodies:
    @pytest.fixture
    def tight(self, settings: Settings, store: Store, user_token: str) -> TestClient:
        small = settings.model_copy(update={"max_json_bytes": 1000, "max_model_bytes": 10_000})
        client = client_of(small, store)
        client.headers["Authorization"] = f"Bearer {user_token}"
        return client

    def test_an_announced_body_over_the_limit_is_refused(self, tight: TestClient) -> None:
        answer = tight.post(JOBS, content=b" " * 1001, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "1000" in answer.json()["detail"]

    def test_so_is_one_that_announces_nothing(self, tight: TestClient) -> None:
        sent = []

        def chunks() -> Iterator[bytes]:
            for _ in range(11):
                sent.append(100)
                yield b" " * 100

        answer = tight.post(JOBS, content=chunks(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")

    def test_and_one_that_lies(self, tight: TestClient) -> None:
        for length in ("ten", "-5", "1e3"):
            answer = tight.post(JOBS, content=b"{}", headers={"Content-Length": length})
            assert answer.status_code == 413

    def test_a_body_at_the_limit_is_read(self, tight: TestClient) -> None:
        answer = tight.post(JOBS, content=b"{}" + b" " * 998, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422

    def test_an_upload_has_its_own_limit(self, tight: TestClient) -> None:
        files = {"file": ("a.onnx", b"x" * 5000)}
        assert tight.post("/api/v1/models", files=files, data={"name": "a"}).status_code != 413

    def test_json_of_many_levels_breaks_nothing(self, client: TestClient) -> None:
        answer = client.post(JOBS, content=b"[" * 100_000, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422)


def test_every_answer_carries_the_policies(anonymous: TestClient) -> None:
    for path, status in (("/healthz", 200), (JOBS, 401), ("/nothing", 404)):
        answer = anonymous.get(path)
        assert answer.status_code == status
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert "script-src" not in answer.headers["content-security-policy"]  # scripts: ours alone, none inline
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
    assert anonymous.get(JOBS).headers["cache-control"] == "no-store"


def test_an_internal_error_tells_an_id_and_nothing_else(
    settings: Settings, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    app: FastAPI = create_app(settings, store)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a password")

    client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    answer = client.get("/broken")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    number = answer.json()["detail"].rsplit(" ", 1)[1]
    assert "password" not in answer.text
    assert "Traceback" not in answer.text
    assert number in caplog.text


def test_no_page_of_another_site_may_read_answers(anonymous: TestClient) -> None:
    answer = anonymous.get("/healthz", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
