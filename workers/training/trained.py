"""Trained: a network after training by the recipe, as its final file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.scoring.difference import Scores


@dataclass(frozen=True)
class Trained:
    """A network after training by the recipe, as its final file. `scores` has one score for each validation image.

    `candidate_id` is the id of the trained candidate; `values` is empty for the control. `elapsed_s` is the time that
    training took, over all runs of the job. `epochs` is the number of epochs behind these weights; training ended at
    `ended_at`. Both include the epochs of the sample that was continued, if any. `epoch_scores` has the score after
    each epoch, on fewer images; NaN if it is not known. If the network scored higher before training, this is the
    network before training, and `left` is the score after training; `ruined` is True if training left so little that
    the network was ruined.
    """

    name: str
    candidate_id: str
    strategy: str | None
    values: Mapping[str, Any]
    path: Path
    scores: Scores
    counts: Mapping[str, float]
    predicted: Mapping[str, float]
    elapsed_s: float = 0.0
    epochs: int = 0
    ended_at: int = 0
    epoch_scores: tuple[float, ...] = ()
    left: float | None = None
    ruined: bool = False

    @property
    def score(self) -> float:
        """The mean score on the whole validation part."""
        return float(self.scores.mean())

    @property
    def untrained(self) -> bool:
        """True if this is the network before training."""
        return self.left is not None or self.ended_at == 0

    @property
    def model(self) -> bytes:
        """The ONNX file."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class GivenUp:
    """The reason why a candidate's training was not completed; `out_of_time` is True if the wall seconds were not
    enough.
    """

    reason: str
    out_of_time: bool = False


def finalist_name(candidate_id: str) -> str:
    """Return the name used for a finalist in files, sessions and reports."""
    return f"finalist-{candidate_id}"


def plain(name: str) -> str:
    """Return a valid file name for this id; ids made by third-party strategies may contain any character."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
