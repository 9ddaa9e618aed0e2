"""The store's contract on PostgreSQL, where one can be started."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from postgres_server import NoPostgres, execute, running
from sqlalchemy import Engine

from service.store import make_engine
from service.store.migrate import migrate
from service.testing import StoreContract

_numbers = count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server, with a template database at the newest schema."""
    try:
        with running() as url:
            execute(url, "CREATE DATABASE fresh")
            engine = make_engine(url.format(database="fresh"))
            migrate(engine)
            engine.dispose()
            yield url
    except NoPostgres as reason:
        pytest.skip(str(reason))


class TestPostgres(StoreContract):
    @pytest.fixture
    def engine(self, server: str) -> Iterator[Engine]:
        name = f"test_{next(_numbers)}"
        execute(server, f"CREATE DATABASE {name} TEMPLATE fresh")
        engine = make_engine(server.format(database=name))
        yield engine
        engine.dispose()
