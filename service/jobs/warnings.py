"""Warnings of a job: lasting warnings about its result, and provisional warnings that end with its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JobWarning:
    """A warning of one sentence. `until_verdict` marks a doubt that the verdict settles; the warning is removed
    then.
    """

    text: str
    until_verdict: bool = False

    def to_json(self) -> Any:
        """Return the JSON form that is stored in a job's row; a lasting warning is stored as its text."""
        return {"text": self.text, "until_verdict": True} if self.until_verdict else self.text

    @classmethod
    def from_json(cls, stored: Any) -> JobWarning:
        """Read a warning from the JSON form that `to_json` writes."""
        return cls(stored) if isinstance(stored, str) else cls(stored["text"], stored["until_verdict"])


def lasting(texts: Iterable[str]) -> list[JobWarning]:
    """Return warnings that remain after the verdict."""
    return [JobWarning(text) for text in texts]


def texts_of(stored: Iterable[Any]) -> list[str]:
    """Return the texts of the warnings in a job's row."""
    return [JobWarning.from_json(each).text for each in stored]


def answered(stored: Sequence[Any]) -> list[Any]:
    """Return the warnings in a job's row, except those that its verdict settles."""
    return [each for each in stored if not JobWarning.from_json(each).until_verdict]
