"""Scores of original networks on data sets, stored so that each score is computed only once."""

from __future__ import annotations

from sqlalchemy import Double, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from compress.tasks import DEFAULT
from service.store.base import Base, Tx


class Score(Base):
    """The summed scores, `right`, of `count` validation samples, drawn with `seed`.

    In a classification, `right` is the number of correct samples. `chance` is the mean score of guessing; it is None in
    rows of the first version, whose chance is 1 / `classes`. A model, a data set and a seed have one row: the row of
    the last `task` that was scored.
    """

    __tablename__ = "scores"
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    seed: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[float] = mapped_column(Double)
    count: Mapped[int]
    classes: Mapped[int]
    task: Mapped[str] = mapped_column(String(64), default=DEFAULT, server_default=DEFAULT)
    chance: Mapped[float | None] = mapped_column(Double)


def find(tx: Tx, model_id: str, dataset_id: str, seed: int) -> Score | None:
    """Return the score of a model on a data set, or None if it is unknown."""
    return tx.session.get(Score, (model_id, dataset_id, seed))


def keep(tx: Tx, score: Score) -> None:
    """Store a score. If a concurrent request has stored it first, its score is equal."""
    tx.session.merge(score)
    tx.session.flush()
