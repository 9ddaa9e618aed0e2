"""The host lock between real processes: exclusion, a waiting measurer is not starved, the dead do not block."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENCE_S

from hw_profiles.host_lock import LOCK_DIR_VARIABLE, HostLock

# Says "in" once inside and leaves when a line (or the end) of stdin comes.
HOLDER = """
import sys
from pathlib import Path
from hw_profiles.host_lock import HostLock
print("asking", flush=True)
with getattr(HostLock(Path(sys.argv[1])), sys.argv[2])():
    print("in", flush=True)
    sys.stdin.readline()
print("out", flush=True)
"""


class Holder:
    """A child process that holds (or waits for) the lock."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.inside = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "asking\n"
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line == "in\n":
                self.inside.set()

    def waits_inside(self) -> None:
        assert self.inside.wait(PATIENCE_S), self.lines

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[list[Holder]]:
    made: list[Holder] = []
    yield made
    for holder in made:
        holder.close()


def _blocked(holder: Holder) -> bool:
    """True once the child sleeps in `flock` (the kernel says so): no guess about time."""
    waiting = Path(f"/proc/{holder.process.pid}/wchan")
    for _ in range(2000):
        if holder.inside.is_set():
            return False
        if "lock" in waiting.read_text():
            return True
        threading.Event().wait(0.01)
    return False


def test_many_compute_together(tmp_path: Path, holders: list[Holder]) -> None:
    for _ in range(2):
        holders.append(Holder(tmp_path, "shared"))
    for holder in holders:
        holder.waits_inside()


def test_a_measurer_waits_and_is_not_starved_by_newcomers(tmp_path: Path, holders: list[Holder]) -> None:
    first = Holder(tmp_path, "shared")
    holders.append(first)
    first.waits_inside()
    measurer = Holder(tmp_path, "exclusive")
    holders.append(measurer)
    assert _blocked(measurer)
    newcomer = Holder(tmp_path, "shared")
    holders.append(newcomer)
    assert _blocked(newcomer), "a newcomer got in ahead of the waiting measurer"

    first.leave()
    measurer.waits_inside()
    assert not newcomer.inside.is_set()
    measurer.leave()
    newcomer.waits_inside()


def test_a_measurer_that_returns_at_once_lets_the_others_in_first(tmp_path: Path, holders: list[Holder]) -> None:
    measurer = Holder(tmp_path, "exclusive")
    holders.append(measurer)
    measurer.waits_inside()
    other = Holder(tmp_path, "shared")
    holders.append(other)
    assert _blocked(other)
    again = Holder(tmp_path, "exclusive")
    holders.append(again)
    assert _blocked(again)
    measurer.leave()
    other.waits_inside()
    assert not again.inside.is_set()
    other.leave()
    again.waits_inside()


@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_a_killed_holder_blocks_nobody(tmp_path: Path, holders: list[Holder], kind: str) -> None:
    dead = Holder(tmp_path, kind)
    holders.append(dead)
    dead.waits_inside()
    dead.process.kill()
    dead.process.wait(PATIENCE_S)
    with HostLock(tmp_path).exclusive():
        pass


def test_a_killed_waiter_opens_the_gate_again(tmp_path: Path, holders: list[Holder]) -> None:
    inside = Holder(tmp_path, "shared")
    holders.append(inside)
    inside.waits_inside()
    waiter = Holder(tmp_path, "exclusive")
    holders.append(waiter)
    assert _blocked(waiter)
    waiter.process.kill()
    waiter.process.wait(PATIENCE_S)
    with HostLock(tmp_path).shared():
        pass


def test_an_error_inside_releases_the_lock(tmp_path: Path) -> None:
    lock = HostLock(tmp_path)
    with pytest.raises(RuntimeError, match="inside"), lock.exclusive():
        raise RuntimeError("inside")
    with lock.exclusive():
        pass


def test_lock_files_are_readable_for_other_users(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        with HostLock(tmp_path).shared():
            pass
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_the_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(tmp_path))
    assert HostLock().folder == tmp_path


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="folder of the host lock is missing"),
        HostLock(tmp_path / "absent").shared(),
    ):
        pass
