"""TrainingRecords: the records that earlier runs and executors left of the training of a job's networks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compress.training.best_epoch import BestEpoch
from workers.progress import EpochTrained
from workers.running import memos
from workers.running.context import Context
from workers.running.memo import Memo
from workers.training.parallel_training import Ended, Epoch
from workers.training.trained import plain


@dataclass(frozen=True)
class TrainingRecords:
    """The records of those training runs of one form of the network that have this number of epochs.

    `milder` is the number of times that the learning rate was lowered before these runs.
    """

    context: Context
    form: str
    epochs: int
    milder: int = 0

    def checkpoint(self, name: str) -> str:
        """Return the name of the checkpoint that holds the state of a network's training."""
        return f"training-{self.form}{self.epochs}{'-milder' * self.milder}-{plain(name)}"

    def best_epoch(self, name: str) -> BestEpoch:
        """Return the finished epochs of a network's training, as its checkpoint tells them."""
        saved = self.context.file(self.checkpoint(name))
        return BestEpoch.of(saved.read_bytes() if saved is not None else None)

    def told(self, name: str, epoch: Epoch) -> EpochTrained:
        """Return the message that tells users about an epoch of a network's training."""
        score = None if math.isnan(epoch.score) else epoch.score
        who, metric = f"{self.form}{name}", self.context.plan.metric
        return EpochTrained(who, epoch.epoch, epoch.epochs, epoch.loss, metric, score, epoch.elapsed_s)

    def facts(self, name: str) -> Memo[memos.TrainedFacts]:
        """Return the memo of a completely trained network."""
        return memos.trained(f"{self.form}{plain(name)}")

    def file(self, name: str) -> str:
        """Return the name of the checkpoint that holds a trained network's file."""
        return memos.trained_file(f"{self.form}{plain(name)}")

    def is_trained(self, name: str) -> bool:
        """Return True if a network is trained and evaluated."""
        return self.context.recall(self.facts(name)) is not None

    def end(self, name: str) -> Ended | None:
        """Return how a training run by an executor ended, or None."""
        return self.context.recall(memos.training_ended(self.checkpoint(name)))

    def note_end(self, name: str, ended: Ended) -> None:
        """Record how a training run by an executor ended."""
        self.context.keep(memos.training_ended(self.checkpoint(name)), ended)

    def is_over(self, name: str) -> bool:
        """Return True if the training of this network is over, however it ended."""
        return self.is_trained(name) or self.end(name) is not None

    def reached_the_end(self, name: str) -> bool:
        """Return True if the network was trained to the end, by this trainer or an executor."""
        end = self.end(name)
        return self.is_trained(name) or (end is not None and end.state == "trained")

    def spent_s(self, name: str) -> float:
        """Return the seconds that the training of a network has taken in all runs."""
        known = self.context.recall(memos.training_seconds(self.checkpoint(name)))
        return known.elapsed_s if known is not None else 0.0

    def note_spent(self, name: str, elapsed_s: float) -> None:
        """Record the seconds that the training of a network has taken."""
        self.context.keep(memos.training_seconds(self.checkpoint(name)), memos.TrainingSeconds(elapsed_s))
