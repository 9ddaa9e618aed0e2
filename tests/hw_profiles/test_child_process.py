"""ChildProcess: what it says, how it dies, what it knows, and that it does not outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from patience import PATIENCE_S

from hw_profiles.child_environment import ROOT, child_environment, forget_settings
from hw_profiles.child_process import Cancelled, ChildProcess, Death, how_it_ended, python_module

ECHO = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"heard": line.strip()}), flush=True)
"""


def _python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


def test_it_answers_line_by_line() -> None:
    with ChildProcess(_python(ECHO)) as child:
        for word in ("one", "two"):
            child.tell(word)
        assert [child.listen(PATIENCE_S) for _ in range(2)] == [{"heard": "one"}, {"heard": "two"}]
        child.ask_to_end()
        assert child.end(PATIENCE_S) == 0


def test_all_of_its_output_can_be_read_at_once() -> None:
    with ChildProcess(_python("import sys; print('x' * 3_000_000); print('aside', file=sys.stderr)")) as child:
        out = child.read(PATIENCE_S)
        assert isinstance(out, bytes)
        assert len(out) == 3_000_001
        assert child.ended() == 0
        assert child.errors() == "aside"


def test_a_child_that_writes_too_much_is_killed() -> None:
    with ChildProcess(_python("while True: print('x' * 1000)"), name="the writer") as child:
        assert child.read(PATIENCE_S, most_bytes=10_000) == Death("crash", "the writer wrote more than 10000 bytes")
        assert child.ended() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; sys.exit('no such thing')", "the child process ended with exit status 1: no such thing"),
        ("import os; os.kill(os.getpid(), 11)", "the child process ended with signal SIGSEGV"),
        ("import sys; print('x' * 9000, file=sys.stderr); sys.exit(3)", f"exit status 3: {'x' * 400}"),
    ],
)
def test_a_death_is_told_with_how_and_the_last_words(program: str, reason: str) -> None:
    with ChildProcess(_python(program)) as child:
        child.tell("to a dead process, perhaps")
        found = child.listen(PATIENCE_S)
    assert isinstance(found, Death)
    assert found.kind == "crash"
    assert found.reason.endswith(reason)


def test_every_exit_status_has_words() -> None:
    words = {how_it_ended(status) for status in range(-64, 128)}
    assert len(words) == 64 + 128
    assert {"exit status 0", "signal SIGKILL", "signal 40"} <= words


@pytest.mark.parametrize("program", ["import time; time.sleep(600)", "import os, time; os.close(1); time.sleep(600)"])
@pytest.mark.parametrize("ask", [ChildProcess.listen, ChildProcess.read])
def test_a_silent_child_is_killed(program: str, ask: Callable[[ChildProcess, float], object]) -> None:
    with ChildProcess(_python(program)) as child:
        assert ask(child, 1.0) == Death("timeout", "silent for 1 s, killed")
        assert child.ended() == -signal.SIGKILL


def test_a_cancelled_wait_ends_and_the_block_ends_the_child() -> None:
    with pytest.raises(Cancelled), ChildProcess(_python("import time; time.sleep(600)")) as child:
        child.listen(PATIENCE_S, lambda: True)
    assert not _runs(child.pid)


def test_a_session_of_its_own_ends_as_a_whole(tmp_path: Path) -> None:
    program = "import subprocess, time; p = subprocess.Popen(['sleep', '600']);"
    program += f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{p.pid}} '); time.sleep(600)"
    with ChildProcess(_python(program), own_session=True) as child:
        _until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith(" "))
        assert child.terminate(PATIENCE_S) == -signal.SIGTERM
    _until(lambda: not _runs(int((tmp_path / "pid").read_text())))


def test_a_child_that_ignores_the_end_of_its_stdin_is_killed() -> None:
    with ChildProcess(_python("import time; time.sleep(600)"), output="ours") as child:
        assert child.end(0.2) == -signal.SIGKILL


@pytest.mark.parametrize(
    "program",
    [
        "import time; time.sleep(600)",  # by the kernel
        "from hw_profiles import lifeline; import time; lifeline.watch_parent(lifeline.leave); time.sleep(600)",
    ],
)
def test_it_does_not_outlive_its_parent(program: str, tmp_path: Path) -> None:
    dies_by = "signal.SIGKILL" if program.startswith("import") else "None"
    pid_file = tmp_path / "pid"
    parent = f"""
import os, signal, sys, time
from hw_profiles.child_environment import child_environment
from hw_profiles.child_process import ChildProcess
child = ChildProcess([sys.executable, "-c", {program!r}], dies_by={dies_by},
                     environment=child_environment(with_packages=True))
open({str(pid_file)!r}, "w").write(f"{{child.pid}} ")
time.sleep(600)
"""
    environment = child_environment(with_packages=True)
    process = subprocess.Popen([sys.executable, "-c", parent], env=environment, cwd=tmp_path)
    _until(lambda: pid_file.exists() and pid_file.read_text().endswith(" "))
    child = int(pid_file.read_text())
    assert _runs(child)
    process.kill()
    process.wait()
    _until(lambda: not _runs(child))


def test_a_child_whose_parent_died_before_it_could_ask_ends_at_once() -> None:
    lifeline = str(ROOT / "hw_profiles" / "lifeline.py")
    command = [sys.executable, "-I", "-S", lifeline, "9", str(os.getpid() + 1), "/bin/true"]
    assert subprocess.run(command, check=False).returncode == 3


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLATHE_TOKEN", "nl_u_secret")
    monkeypatch.setenv("NETLATHE_LOCK_DIR", str(tmp_path))
    monkeypatch.setenv("OTHER", "kept")


@pytest.mark.usefixtures("settings")
def test_a_child_knows_the_lock_and_none_of_our_settings() -> None:
    program = "import os, json; print(json.dumps(dict(os.environ)))"
    with ChildProcess(_python(program)) as child:
        found = child.listen(PATIENCE_S)
    assert not isinstance(found, Death)
    ours = {name for name in os.environ if name.startswith("NETLATHE_")}
    assert "NETLATHE_TOKEN" in ours
    assert {name for name in found if name.startswith("NETLATHE_")} == {"NETLATHE_LOCK_DIR"}
    assert found["OTHER"] == "kept"


@pytest.mark.usefixtures("settings")
def test_a_process_can_forget_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    forget_settings()
    assert [name for name in os.environ if name.startswith("NETLATHE_")] == ["NETLATHE_LOCK_DIR"]


def test_our_packages_are_found_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "hw_profiles.py").write_text("raise SystemExit('the wrong one')")
    given = child_environment({"PYTHONPATH": "relative"}, with_packages=True)
    assert given["PYTHONPATH"].split(os.pathsep) == [str(ROOT), str(Path("relative").absolute())]
    with ChildProcess(python_module("hw_profiles.agent", "--help"), environment=given, folder=tmp_path) as child:
        assert b"usage: netlathe agent" in bytes(child.read(PATIENCE_S))  # type: ignore[arg-type]
