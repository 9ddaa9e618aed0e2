"""Child: what a process of the service gets to know."""

from __future__ import annotations

from pathlib import Path

import pytest
from patience import PATIENCE_S

from service.processes.child import Child

PROGRAM = """
import os, pathlib
seen = sorted(name for name in os.environ if name.startswith("NETLATHE_"))
pathlib.Path(os.environ["SEEN"]).write_text(" ".join(seen))
"""


def test_a_child_knows_what_it_is_told_and_none_of_our_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nosy.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NETLATHE_DATABASE_URL", "postgresql://owner:secret@db/netlathe")
    monkeypatch.setenv("NETLATHE_LOCK_DIR", str(tmp_path))
    child = Child("nosy", environment={"NETLATHE_PORT": "1", "SEEN": str(tmp_path / "seen")})
    assert child.end(PATIENCE_S) == 0
    assert (tmp_path / "seen").read_text() == "NETLATHE_LOCK_DIR NETLATHE_PORT"
