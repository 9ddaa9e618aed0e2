"""Evaluation: the result of evaluating a candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from search.candidate import Candidate
from search.errors import InvalidInput


class Status(StrEnum):
    """The way in which an evaluation ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    """A stopper ended the evaluation early; its metrics are not final."""
    INFEASIBLE = "infeasible"
    """Before any score was known, the candidate broke a constraint or turned out to be impossible."""
    FAILED = "failed"
    """The evaluator failed; `reason` says why."""


NAN = "nan"
"""The reason given if a loss or metric was not a finite number, which counts as a failure of the candidate itself."""


@dataclass(frozen=True)
class Evaluation:
    """A candidate with its status and its metrics by key (`accuracy`, `latency_ms@dev_1`).

    `network` is the digest of the resulting network, from which a later candidate may start.
    """

    candidate: Candidate
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0
    reason: str = ""
    network: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.metrics.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidInput(f"metrics.{name}", value, "must be a finite number")
        if not (math.isfinite(self.elapsed_s) and self.elapsed_s >= 0):
            raise InvalidInput("elapsed_s", self.elapsed_s, "must be a finite number, at least 0")
        if self.status is Status.COMPLETED and not self.metrics:
            raise InvalidInput("metrics", self.metrics, "a completed evaluation must have metrics")
        if self.status is Status.FAILED and not self.reason:
            raise InvalidInput("reason", self.reason, "a failed evaluation must have a reason")

    def to_json(self) -> dict[str, Any]:
        """Return a dict for JSON; `from_json` turns it back into an equal evaluation."""
        return {
            "candidate": self.candidate.to_json(),
            "status": self.status.value,
            "metrics": dict(self.metrics),
            "elapsed_s": self.elapsed_s,
            "reason": self.reason,
            "network": self.network,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation of a record. Raises: InvalidInput if the record is not an evaluation."""
        try:
            return cls(
                candidate=Candidate.from_json(record["candidate"]),
                status=Status(record["status"]),
                metrics=dict(record["metrics"]),
                elapsed_s=record["elapsed_s"],
                reason=record["reason"],
                network=record["network"],
            )
        except (KeyError, TypeError) as error:
            raise InvalidInput("evaluation", record, f"is not an evaluation: {error!r}") from error
        except InvalidInput:
            raise
        except ValueError as error:
            raise InvalidInput("evaluation.status", record["status"], "is not a status") from error
