"""Stamps a row with the time and the load of the machine."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any


def stamp() -> dict[str, Any]:
    """Return the time as `at`, and as `load` the mean number of running or waiting processes over a minute, the
    benchmark's own included.
    """
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "load": round(os.getloadavg()[0], 1)}
