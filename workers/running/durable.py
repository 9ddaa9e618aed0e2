"""write: writes a file atomically and durably, so that it survives a loss of power."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write(path: Path, content: bytes) -> Path:
    """Write a file and return its path.

    Each call writes to a draft file of its own. So a run that has lost its lease, but does not know it yet, never
    writes to the draft of another run.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.draft")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path
