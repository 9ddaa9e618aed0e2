"""When a row was made, and how busy the machine was."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any


def stamp() -> dict[str, Any]:
    """`at`, and `load`: the mean over a minute of what ran or waited to run, the benchmark's own processes among it."""
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "load": round(os.getloadavg()[0], 1)}
