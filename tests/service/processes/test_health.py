"""Alive, ready, figures."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from typing import NoReturn

import pytest
from fastapi.testclient import TestClient
from service_world import HandClock
from sqlalchemy import text

from service.settings import Settings
from service.store import Store
from service.store.jobs import conductors


def test_alive_without_a_token(anonymous: TestClient) -> None:
    assert anonymous.get("/healthz").json() == {"status": "alive"}


def test_ready_tells_who_runs_jobs(anonymous: TestClient, store: Store) -> None:
    assert anonymous.get("/readyz").json() == {"store": "ok", "writes": "ok", "executor": "down", "conductors": 0}
    with store.begin() as tx:
        conductors.seen(tx, "c1", "starting")
        conductors.seen(tx, "c2", "ok")
    assert anonymous.get("/readyz").json() == {"store": "ok", "writes": "ok", "executor": "ok", "conductors": 2}


def test_a_silent_conductor_is_not_counted(anonymous: TestClient, store: Store, clock: HandClock) -> None:
    with store.begin() as tx:
        conductors.seen(tx, "c1", "ok")
    clock.advance(31)
    assert anonymous.get("/readyz").json() == {"store": "ok", "writes": "ok", "executor": "down", "conductors": 0}


def test_not_ready_on_an_old_schema(anonymous: TestClient, store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    answer = anonymous.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["store"] == "outdated"


def test_not_ready_while_no_write_succeeds(
    anonymous: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("service.files.data_folder.LEAST_FREE_BYTES", shutil.disk_usage(settings.data_dir).total + 1)
        answer = anonymous.get("/readyz")
        assert (answer.status_code, answer.json()["store"], answer.json()["writes"]) == (503, "ok", "full")
    for error, writes in ((errno.EDQUOT, "full"), (errno.EROFS, "refused")):
        with monkeypatch.context() as patched:
            patched.setattr("service.files.data_folder.tempfile.TemporaryFile", failing(OSError(error, "no")))
            answer = anonymous.get("/readyz")
            assert (answer.status_code, answer.json()["writes"]) == (503, writes)
    assert anonymous.get("/readyz").status_code == 200


def failing(error: OSError) -> Callable[..., NoReturn]:
    def fail(*_arguments: object, **_named: object) -> NoReturn:
        raise error

    return fail


def test_metrics_are_prometheus_text(anonymous: TestClient) -> None:
    text_ = anonymous.get("/metrics").text
    assert "netlathe_conductors 0.0" in text_
    assert "# TYPE netlathe_jobs gauge" in text_


def test_an_unknown_route_is_a_problem_document(anonymous: TestClient) -> None:
    answer = anonymous.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"
