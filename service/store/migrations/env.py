"""Alembic's entry point: runs the migrations on the connection that service.store.migrate passes."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from service.store import Base
from service.store.base import UtcTime


def _render(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    # Types are rendered as SQLAlchemy's own types, so that later changes of this project's types do not change a
    # migration.
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=context.config.attributes["connection"].dialect.name == "sqlite",
    render_item=_render,
    transactional_ddl=True,  # SQLite supports transactional DDL if the driver does not commit by itself
)
context.run_migrations()
