"""Fixtures of the service's tests: a migrated store, an application over it, clients of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from checks_here import child_here
from fastapi.testclient import TestClient
from service_world import HandClock, Uploaded, add_device, add_model, queue

from service.app import create_app
from service.files.blobs import Blobs
from service.files.secret_values import new_secret
from service.settings import Settings
from service.store import Store, make_engine, tokens
from service.store.migrate import migrate
from service.store.uploads import scores
from service.store.uploads.datasets import Dataset


@pytest.fixture(autouse=True)
def _checks_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check uploads in this process, not in a child process, except in tests marked `sandbox`."""
    if request.node.get_closest_marker("sandbox") is None:
        monkeypatch.setattr("service.uploads.sandbox._child", child_here)


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


@pytest.fixture
def uploaded(store: Store, settings: Settings) -> Uploaded:
    """A model and a data set that fit each other and do the task, and a device; rows only, the blobs are dummies."""
    blobs = Blobs(settings.data_dir)
    with store.begin() as tx:
        stored = blobs.put_bytes(b"a network"), blobs.put_bytes(b"images")
        for blob in stored:
            blobs.record(tx, blob)
        add_model(tx, "net", stored[0].sha256)
        tx.session.add(
            Dataset(
                id="dts_1",
                name="digits",
                sha256=stored[1].sha256,
                file_name="digits.npz",
                train_count=1000,
                test_count=500,
                classes=10,
                image_shape=[32, 32, 1],
                warnings=[],
                created_at=tx.now,
            )
        )
        add_device(tx, "dev_1", "local")
        tx.session.flush()
        for seed in (0, 1):
            scores.keep(
                tx, scores.Score(model_id="mdl_1", dataset_id="dts_1", seed=seed, right=900, count=1000, classes=10)
            )
    return Uploaded("mdl_1", "dts_1", "dev_1")


@pytest.fixture
def queued(store: Store, uploaded: Uploaded) -> str:
    """The id of a job that waits to be claimed."""
    return queue(store, uploaded)
