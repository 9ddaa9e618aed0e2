"""The store's contract on SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from service.store import make_engine
from service.testing import StoreContract


class TestSqlite(StoreContract):
    @pytest.fixture
    def engine(self, tmp_path: Path, migrated_file: Path) -> Iterator[Engine]:
        shutil.copy(migrated_file, tmp_path / "store.db")
        engine = make_engine(f"sqlite:///{tmp_path / 'store.db'}")
        yield engine
        engine.dispose()

    def test_it_writes_ahead_and_keeps_what_it_acknowledged(self, engine: Engine) -> None:
        with engine.connect() as connection:
            assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
            assert connection.scalar(text("PRAGMA synchronous")) == 2
            assert connection.scalar(text("PRAGMA foreign_keys")) == 1
            assert connection.scalar(text("PRAGMA busy_timeout")) == 5000

    def test_a_writer_does_not_stop_readers(self, engine: Engine) -> None:
        with engine.execution_options(netlathe_write=True).begin() as writing:
            writing.execute(text("UPDATE event_numbers SET newest = 7"))
            with engine.begin() as reading:
                assert reading.scalar(text("SELECT newest FROM event_numbers")) == 0
