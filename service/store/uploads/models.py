"""Models: uploaded networks. `groups` and `warnings` are stored in the form that the REST answer shows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, String, select
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, Tx


class Model(Base):
    """One network: a blob and the results of its checks. `state` is `checking`, `ready` or `refused`; `output` is the
    output to score, if the user named one.
    """

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    state: Mapped[str] = mapped_column(String(16), default="ready")
    preprocessing: Mapped[dict[str, Any]]
    output: Mapped[str | None] = mapped_column(String(400))
    parameters: Mapped[int] = mapped_column(BigInteger, default=0)
    macs: Mapped[int] = mapped_column(BigInteger, default=0)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    input_shape: Mapped[list[Any]] = mapped_column(default=list)
    inputs: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    outputs: Mapped[list[Any]] = mapped_column(default=list)
    groups: Mapped[list[Any]] = mapped_column(default=list)
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    problem: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


def find(tx: Tx, ref: str) -> Model | None:
    """Return the model with this id, or else with this name."""
    by_id = tx.session.get(Model, ref)
    return by_id or tx.session.execute(select(Model).where(Model.name == ref)).scalar_one_or_none()
