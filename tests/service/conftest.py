"""Fixtures of the service's tests: a migrated store, an application over it, clients of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Connection

from service.app import create_app
from service.settings import Settings
from service.store import Store, make_engine, tokens
from service.store.migrate import migrate
from service.tokens import new_secret


class HandClock:
    """The database's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self, _connection: Connection) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database at the newest schema; tests copy it."""
    path = tmp_path_factory.mktemp("store") / "netlathe.db"
    engine = make_engine(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", event_poll_s=0.02)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(settings: Settings, migrated_file: Path, clock: HandClock) -> Iterator[Store]:
    """A store on SQLite whose clock moves by hand."""
    settings.data_dir.mkdir(parents=True)
    shutil.copy(migrated_file, settings.data_dir / "netlathe.db")
    found = Store(make_engine(settings.url), clock)
    yield found
    found.close()


@pytest.fixture
def user_token(store: Store) -> str:
    secret = new_secret("user")
    with store.begin() as tx:
        tokens.create(tx, "user", "tester", secret)
    return secret


@pytest.fixture
def anonymous(store: Store, settings: Settings) -> Iterator[TestClient]:
    """A client without a token, of a running application over `store`."""
    app = create_app(settings, store)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(anonymous: TestClient, user_token: str) -> TestClient:
    """The same client with a user's token."""
    anonymous.headers["Authorization"] = f"Bearer {user_token}"
    return anonymous
