"""Alembic's entry: runs the migrations on the connection that service.store.migrate hands over."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from service.store import Base
from service.store.base import UtcTime


def _render(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    # A migration must not change when our own types do.
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=context.config.attributes["connection"].dialect.name == "sqlite",
    render_item=_render,
    transactional_ddl=True,  # SQLite has it, once the driver is told not to commit by itself
)
context.run_migrations()
