"""The store's contract on PostgreSQL, where one can be started."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from postgres_server import NoPostgres, running
from sqlalchemy import Engine, create_engine, text

from service.store import make_engine
from service.store.migrate import migrate
from service.testing import StoreContract

_numbers = count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server, with a template database at the newest schema."""
    try:
        with running() as url:
            _execute(url, "CREATE DATABASE fresh")
            engine = make_engine(url.format(database="fresh"))
            migrate(engine)
            engine.dispose()
            yield url
    except NoPostgres as reason:
        pytest.skip(str(reason))


def _execute(url: str, statement: str) -> None:
    admin = create_engine(url.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(statement))
    admin.dispose()


class TestPostgres(StoreContract):
    @pytest.fixture
    def engine(self, server: str) -> Iterator[Engine]:
        name = f"test_{next(_numbers)}"
        _execute(server, f"CREATE DATABASE {name} TEMPLATE fresh")
        engine = make_engine(server.format(database=name))
        yield engine
        engine.dispose()
