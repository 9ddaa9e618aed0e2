"""The store does not answer: nothing is half done, and the client is told to come back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from service_world import Uploaded
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection

from service.app import create_app
from service.settings import Settings
from service.store import Store, make_engine


def test_a_locked_database_is_a_503_that_wrote_nothing(
    settings: Settings, store: Store, uploaded: Uploaded, user_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.engine.BUSY_TIMEOUT_S", 0.05)
    impatient = Store(make_engine(settings.url), store.clock)
    client = TestClient(create_app(settings, impatient), base_url="http://127.0.0.1")
    client.headers["Authorization"] = f"Bearer {user_token}"
    body = {"model": "net", "dataset": "digits"}
    holder = sqlite3.connect(settings.data_dir / "netlathe.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    refused = client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert refused.json()["code"] == "unavailable"
    assert client.get("/api/v1/jobs").json()["total"] == 0, "readers are not stopped"
    holder.execute("ROLLBACK")
    holder.close()
    assert client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k"}).status_code == 201
    impatient.close()


def test_a_full_database_is_a_503_that_says_so(client: TestClient, store: Store, uploaded: Uploaded) -> None:
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()

    def fill(connection: DBAPIConnection, *_: object) -> None:  # the bound holds for one connection alone
        connection.cursor().execute(f"PRAGMA max_page_count = {pages}")

    event.listen(store.engine, "checkout", fill)
    body = {"model": "net", "dataset": "digits", "name": "x" * 60}
    answers = [client.post("/api/v1/jobs", json=body | {"name": f"job-{number}"}) for number in range(100)]
    refused = next(answer for answer in answers if answer.status_code != 201)
    assert (refused.status_code, refused.json()["code"]) == (503, "no_space")


def test_a_migration_that_breaks_leaves_the_schema_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import op
    from sqlalchemy import inspect

    from service.store.migrate import migrate

    def fail(statement: str) -> None:
        raise KeyboardInterrupt

    engine = make_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with monkeypatch.context() as patched:
        patched.setattr(op, "execute", fail)  # the last statement of the first migration
        with pytest.raises(KeyboardInterrupt):
            migrate(engine)
    assert inspect(engine).get_table_names() == []
    migrate(engine)
    assert "jobs" in inspect(engine).get_table_names()
    engine.dispose()
