"""Data sets: uploaded data, one file each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, String, select
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, Tx


class Dataset(Base):
    """One data set: a blob and the results of its checks. `state` is `checking`, `ready` or `refused`.

    `file_name` is the user's name of the file, whose suffix shows the kind. `layout` and `class_count` are the user's
    settings; each is None if the user did not set it. `classes` is the number of classes found; it is 0 if labels are
    not class numbers but arrays of `target_shape`. `image_shape` is height, width, channels, and empty if images differ
    in size. Counts include the parts drawn from `train` in place of missing parts.
    """

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    state: Mapped[str] = mapped_column(String(16), default="ready")
    file_name: Mapped[str] = mapped_column(String(256))
    layout: Mapped[str | None] = mapped_column(String(8))
    class_count: Mapped[int | None]
    train_count: Mapped[int] = mapped_column(default=0)
    validation_count: Mapped[int] = mapped_column(default=0)
    test_count: Mapped[int] = mapped_column(default=0)
    classes: Mapped[int] = mapped_column(default=0)
    class_names: Mapped[list[Any]] = mapped_column(default=list)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    image_shape: Mapped[list[Any]] = mapped_column(default=list)
    target_shape: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    problem: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


def find(tx: Tx, ref: str) -> Dataset | None:
    """Return the data set with this id, or else with this name."""
    by_id = tx.session.get(Dataset, ref)
    return by_id or tx.session.execute(select(Dataset).where(Dataset.name == ref)).scalar_one_or_none()
