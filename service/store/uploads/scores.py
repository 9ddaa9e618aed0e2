"""Scores: accuracy of original networks on data sets, stored so that each is computed once."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, Tx


class Score(Base):
    """The number of validation samples classified as labelled: `right` of `count`, drawn with `seed`."""

    __tablename__ = "scores"
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    seed: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[int]
    count: Mapped[int]
    classes: Mapped[int]


def find(tx: Tx, model_id: str, dataset_id: str, seed: int) -> Score | None:
    """Return the score of a model on a data set, or None if it is unknown."""
    return tx.session.get(Score, (model_id, dataset_id, seed))


def keep(tx: Tx, score: Score) -> None:
    """Store a score; if a racing request stored it first, that one is equal."""
    tx.session.merge(score)
    tx.session.flush()
