"""Failures of the machine (out of memory, disk full, database unreachable), after which a job is queued again."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

from sqlalchemy.exc import OperationalError

from service.files.data_folder import is_full
from workers.errors import PoolBroken

FULL = "no space left on device"
OUT_OF_MEMORY = "out of memory"

_PATH = re.compile(r"(: )?'?/[^'\s]*'?")
# Libraries have no classes for these errors: torch raises RuntimeError, onnxruntime Fail, safetensors SafetensorError.
_SAYS_FULL = re.compile(r"no space left on device", re.IGNORECASE)
_SAYS_OUT_OF_MEMORY = re.compile(r"out of memory|(can't|cannot|failed to) allocate memory", re.IGNORECASE)


def machine_failure(error: Exception) -> str | None:
    """Describe the machine's failure without paths and addresses; None if the machine did not fail."""
    return next((reason for cause in _causes(error) if (reason := _reason(cause)) is not None), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its explicit causes, but not errors that were merely being handled when it was raised."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _reason(error: BaseException) -> str | None:
    match error:
        case MemoryError():
            return OUT_OF_MEMORY
        case OSError():
            return _of_system(error)
        case OperationalError():
            return str(error.orig) if isinstance(error.orig, sqlite3.Error) else type(error).__name__
        case PoolBroken():
            return f"no evaluator starts ({_PATH.sub('', str(error))[:200]})"
    text = str(error)
    if _SAYS_FULL.search(text):
        return FULL
    return OUT_OF_MEMORY if _SAYS_OUT_OF_MEMORY.search(text) else None


def _of_system(error: OSError) -> str:
    if is_full(error):
        return FULL
    return error.strerror[:1].lower() + error.strerror[1:] if isinstance(error.strerror, str) else type(error).__name__
