"""The shared cases: small networks and data sets that the service fell short on once."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(os.environ.get("NETLATHE_SHARED", Path(__file__).parents[3] / "shared"))
CASES = SHARED / "cases"
PIXELS = json.dumps({"mean": [0.5], "std": [0.25]})


def content(name: str) -> bytes:
    """A file of the folder; `large.npz` is plain.npz at 32 x 32."""
    if not CASES.exists():
        pytest.skip(f"needs real data: {CASES} is not here")
    if name != "large.npz":
        return (CASES / name).read_bytes()
    plain, buffer = np.load(CASES / "plain.npz", allow_pickle=False), io.BytesIO()
    large = {part: plain[part].repeat(2, 1).repeat(2, 2) if part.startswith("x") else plain[part] for part in plain}
    np.savez(buffer, allow_pickle=False, **large)
    return buffer.getvalue()
