"""KeptAlive: one child after another, with rests between them, and none left at the end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from patience import PATIENCE_S

from service.processes import restarting
from service.processes.child import Child
from service.processes.restarting import KeptAlive

SHORT_LIFE = "raise SystemExit(3)"
OBEDIENT = "import sys; sys.stdin.read()"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Child]:
    """Starts a child that runs this code."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(restarting, "LOOK_S", 0.01)

    def start(code: str) -> Child:
        (tmp_path / "programme.py").write_text(code)
        return Child("programme")

    return start


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_child_that_is_killed_is_followed_by_another(
    program: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(restarting, "FIRST_REST_S", 0.01)
    kept = KeptAlive("the child", lambda: program(OBEDIENT), PATIENCE_S)
    kept.start()
    try:
        until(lambda: kept.pid is not None)
        first = kept.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: kept.pid != first)
        assert "the child ended with exit status -9 and will be restarted" in caplog.messages
    finally:
        kept.end()
    assert kept.pid is not None
    assert not Path(f"/proc/{kept.pid}").exists()


def test_rests_grow_up_to_the_longest_and_failures_to_start_are_lived_through(
    program: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    begun: list[Child] = []
    monkeypatch.setattr(restarting, "LONGEST_REST_S", 4.0)

    def spawn() -> Child:
        if len(rests) == 1:
            raise OSError("out of processes")
        begun.append(program(SHORT_LIFE))
        return begun[-1]

    kept = KeptAlive("the child", spawn, PATIENCE_S)

    class Rests(threading.Event):
        """Ends all after five rests; the waits between two looks at a child are real."""

        def wait(self, timeout: float | None = None) -> bool:
            if timeout == restarting.LOOK_S:
                return super().wait(timeout)
            rests.append(timeout or 0.0)
            if len(rests) == 5:
                self.set()
            return self.is_set()

    kept._ending = Rests()
    kept._watch()
    assert rests == [1.0, 2.0, 4.0, 4.0, 4.0]
    assert len(begun) == 4
    assert [child.ended() for child in begun] == [3] * 4


def test_a_child_that_comes_up_while_all_ends_is_ended_too(program: Callable[[str], Child]) -> None:
    spawning, go_on = threading.Event(), threading.Event()
    born: list[Child] = []

    def spawn() -> Child:
        spawning.set()
        go_on.wait(PATIENCE_S)
        born.append(program(OBEDIENT))
        return born[-1]

    kept = KeptAlive("the child", spawn, PATIENCE_S)
    kept.start()
    assert spawning.wait(PATIENCE_S)
    kept.ask_to_end()
    go_on.set()
    kept.end()
    (child,) = born
    assert child.ended() == 0


def test_after_the_end_nothing_is_started() -> None:
    def spawn() -> Child:
        raise AssertionError("started")

    kept = KeptAlive("the child", spawn, PATIENCE_S)
    kept.ask_to_end()
    kept.start()
    kept.end()
    assert kept.pid is None
