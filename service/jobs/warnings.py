"""Warnings of a job: what whoever reads its result must know, and questions that only last until a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JobWarning:
    """One sentence. `until_verdict`: it asks what a verdict answers, and goes with it."""

    text: str
    until_verdict: bool = False

    def to_json(self) -> Any:
        """As a row of a job stores it: a lasting one is its text."""
        return {"text": self.text, "until_verdict": True} if self.until_verdict else self.text

    @classmethod
    def from_json(cls, stored: Any) -> JobWarning:
        """Read what `to_json` wrote."""
        return cls(stored) if isinstance(stored, str) else cls(stored["text"], stored["until_verdict"])


def lasting(texts: Iterable[str]) -> list[JobWarning]:
    """Warnings that a verdict does not answer."""
    return [JobWarning(text) for text in texts]


def texts_of(stored: Iterable[Any]) -> list[str]:
    """The texts of what a job's row holds."""
    return [JobWarning.from_json(each).text for each in stored]


def answered(stored: Sequence[Any]) -> list[Any]:
    """What a job's row holds, without those that asked what a verdict has answered."""
    return [each for each in stored if not JobWarning.from_json(each).until_verdict]
