"""Trained: a network after the recipe, as the file it will be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.scoring.difference import Scores


@dataclass(frozen=True)
class Trained:
    """A network after the recipe, as the file it will be. `scores`: of the validation images.

    `candidate_id`: the candidate that was trained; `values` is empty for the control; `elapsed_s` is the time that
    training took, over all runs of the job; `epochs` include those of the sample that it went on from.
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

    @property
    def score(self) -> float:
        """On the whole validation part."""
        return float(self.scores.mean())

    @property
    def model(self) -> bytes:
        """The ONNX file."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class GivenUp:
    """Why a candidate's training was not brought to its end; `out_of_time`: the wall seconds did not last for it."""

    reason: str
    out_of_time: bool = False


def finalist_name(candidate_id: str) -> str:
    """What a finalist is called in files, sessions and reports."""
    return f"finalist-{candidate_id}"


def plain(name: str) -> str:
    """The name of a file: ids of third parties may hold anything."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
