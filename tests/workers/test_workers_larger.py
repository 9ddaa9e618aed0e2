"""A result that takes more bytes than the upload is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from workers.phases.conclude import _larger


def told(made: float, came: float) -> list[str]:
    found: Any = SimpleNamespace(original={"size_bytes": came})
    shown: Any = SimpleNamespace(trained=SimpleNamespace(counts={"size_bytes": made}))
    return _larger(found, shown)


def test_a_result_larger_than_the_upload_is_told_with_both_sizes() -> None:
    assert told(136_844, 87_954) == ["The result is larger than the upload: 136,844 bytes against 87,954."]


def test_one_that_is_not_larger_is_not() -> None:
    assert told(87_954, 87_954) == []
