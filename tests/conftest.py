"""What all tests share: the folder of real data and trained networks, where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("NETLATHE_SHARED", ROOT.parent / "shared"))
Shared = Callable[[str], Path]


@pytest.fixture(scope="session")
def shared() -> Shared:
    """A file of the shared data by its path there. Absent altogether: skipped; given but incomplete: a failure."""

    def find(name: str) -> Path:
        if not (SHARED / "data").exists():
            pytest.skip(f"needs real data: {SHARED / 'data'} is not here")
        path = SHARED / "data" / name
        assert path.exists(), f"{path} is missing from the shared data"
        return path

    return find
