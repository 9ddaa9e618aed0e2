"""write: a file, whole or not at all, and still there after a loss of power."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write(path: Path, content: bytes) -> Path:
    """Write a file and return its path.

    The draft is this call's own: a run that was fenced off and does not know it yet writes beside it, not into it.
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
