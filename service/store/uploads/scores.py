"""Scores: how well an original does on the data it was given, so that it is found out once."""

from __future__ import annotations

from sqlalchemy import Double, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from compress.tasks import DEFAULT
from service.store.base import Base, Tx


class Score(Base):
    """The summed scores of `count` validation samples, drawn by `seed`: so many are `right`, if each is right or wrong.

    `chance` is the mean score of guessing; None in rows of the first version, whose chance is one of `classes`. A model
    and a data set have one row: the last task that was asked for.
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
    """The score of a model on a data set, if it is known."""
    return tx.session.get(Score, (model_id, dataset_id, seed))


def keep(tx: Tx, score: Score) -> None:
    """Keep a score; one that a racing request kept first is the same."""
    tx.session.merge(score)
    tx.session.flush()
