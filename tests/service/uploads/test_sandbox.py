"""The sandbox itself: tasks that misbehave, put beside the real ones, and the real ones."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from checks_here import child_here
from patience import PATIENCE_S
from service_networks import classifier

from compress.builtin.digits import digits_npz
from hw_profiles.host_lock import LOCK_DIR_VARIABLE, HostLock
from service.errors import InvalidInput
from service.uploads import sandbox
from service.uploads.intake import check_dataset, check_model
from service.uploads.sandbox import MIB, CheckBroken, Limits

pytestmark = pytest.mark.sandbox
LIMITS = Limits(memory_bytes=4 * 1024 * MIB, cpu_s=120, wall_s=300)


SITECUSTOMIZE = """
import sys, importlib.util
spec = importlib.util.spec_from_file_location("service.uploads.checks.extra", {path!r})
sys.modules["service.uploads.checks.extra"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""
CLOSE_ALL = """
import os, time
os.closerange(0, 20)
time.sleep(600)
"""


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Adds a task to `service.uploads.checks` whose body is given; returns its name."""
    code = tmp_path / "extra"
    code.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(code))
    (code / "sitecustomize.py").write_text(SITECUSTOMIZE.format(path=str(code / "task.py")))

    def add(body: str) -> str:
        (code / "task.py").write_text(f"def run(request):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n")
        return "extra"

    return add


def outcome(name: str, limits: Limits = LIMITS) -> dict[str, Any]:
    return sandbox.run(name, {"word": "hello"}, limits)


def test_a_check_waits_while_somebody_measures_and_its_limit_does_not_run(
    task: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(tmp_path))
    name = task("return {}")
    with ThreadPoolExecutor() as pool:
        with HostLock(tmp_path).exclusive():
            # So short that the wait alone would use it up.
            found = pool.submit(outcome, name, Limits(wall_s=10))
            with pytest.raises(TimeoutError):
                found.result(11)
        assert found.result(PATIENCE_S) == {}


def test_nobody_measures_while_a_check_computes(
    task: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(tmp_path))
    began, may_end = tmp_path / "began", tmp_path / "end"
    name = task(f"""
        import os, time
        open({str(began)!r}, "w").close()
        while not os.path.exists({str(may_end)!r}): time.sleep(0.01)
        return {{}}
    """)
    measured = threading.Event()

    def measure() -> None:
        with HostLock(tmp_path).exclusive():
            measured.set()

    with ThreadPoolExecutor() as pool:
        check = pool.submit(outcome, name)
        while not began.exists():
            assert not check.done()
            time.sleep(0.01)
        measuring = pool.submit(measure)
        early = measured.wait(0.3)
        may_end.touch()
        assert check.result(PATIENCE_S) == {}
        measuring.result(PATIENCE_S)
    assert not early


def test_a_report_comes_back_whatever_is_printed(task: Callable[[str], str]) -> None:
    name = task("""
        import os, sys
        print("noise"); os.write(1, b"more noise"); sys.stderr.write("x")
        return {"heard": request["word"]}
    """)
    assert outcome(name) == {"heard": "hello"}


@pytest.mark.parametrize("kind", ["RuntimeError(said)", "InvalidInput('file', None, said)"])
def test_no_answer_tells_where_files_lie_here(task: Callable[[str], str], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "objects" / "ab12"
    name = task(f"""
        import os
        from compress.errors import InvalidInput
        said = "load of " + request["path"] + ", " + request["path"] + ".cache and " + os.getcwd() + " failed"
        raise {kind}
    """)
    with pytest.raises(InvalidInput) as caught:
        sandbox.run(name, {"path": str(path)}, LIMITS)
    assert caught.value.message.endswith("load of <path>, <path>.cache and <folder> failed")


@pytest.mark.parametrize(
    ("body", "limits", "match"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", LIMITS, "SIGSEGV"),
        ("import os; os._exit(3)", LIMITS, "exit status 3"),
        ("raise KeyError('x')", LIMITS, "KeyError"),
        ("bytearray(8 << 30)", LIMITS, r"more than 4 GiB of memory"),
        ("while True: pass", Limits(cpu_s=1, wall_s=300), "1 s of processor time"),
        ("import time; time.sleep(600)", Limits(wall_s=1.5), r"more than 1\.5 s"),
        (
            CLOSE_ALL,
            Limits(wall_s=2),
            "more than 2 s",
        ),
        ("open('big', 'wb').write(bytes(2_000_000))", Limits(file_bytes=1_000_000), "File too large"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", LIMITS, "not allowed"),
        ("import subprocess; subprocess.run(['true'])", LIMITS, "not allowed"),
        ("import os; os.system('true')", LIMITS, "not allowed"),
        ("import pickle; pickle.loads(b'cos\\nsystem\\n.')", LIMITS, "not allowed"),
        ("return {'value': float('nan')}", LIMITS, "not JSON compliant"),
    ],
)
def test_whatever_happens_in_the_child_is_an_answer_about_the_file(
    task: Callable[[str], str], body: str, limits: Limits, match: str
) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        outcome(task(body), limits)
    assert caught.value.field == "file"


@pytest.mark.parametrize(
    "body",
    [
        "import service.not_written_yet",
        "from service.uploads.sandbox import not_there",
        "from service.uploads.not_onnx import refuse_foreign; refuse_foreign(3, 'x.onnx')",
        "from compress.errors import Mistake; raise Mistake('a rule of ours')",
    ],
)
def test_mistakes_of_our_own_are_no_answer_about_the_file(task: Callable[[str], str], body: str) -> None:
    with pytest.raises(CheckBroken, match="Traceback"):
        outcome(task(body))


def test_errors_that_a_library_stumbles_into_are_about_the_file(task: Callable[[str], str]) -> None:
    with pytest.raises(InvalidInput, match="AttributeError"):
        outcome(task("import shlex; shlex.split(3)"))


def test_the_child_sees_no_secrets(task: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLATHE_TOKEN", "nl_u_hidden")
    monkeypatch.setenv("NETLATHE_DATABASE_URL", "postgresql://me:hidden@db/x")
    name = task("import os; return dict(os.environ)")
    assert "hidden" not in json.dumps(outcome(name))


def test_the_child_ends_when_its_parent_is_killed(task: Callable[[str], str], tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    name = task(f"""
        import os, time
        open({str(pid_file)!r} + ".part", "w").write(str(os.getpid()))
        os.rename({str(pid_file)!r} + ".part", {str(pid_file)!r})
        time.sleep(600)
    """)
    code = f"from service.uploads import sandbox; sandbox.run({name!r}, {{}}, sandbox.Limits())"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        _wait_until(pid_file.exists)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    child = int(pid_file.read_text())
    _wait_until(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _wait_until(holds: Callable[[], bool], at_most_s: float = 60.0) -> None:
    end = time.monotonic() + at_most_s
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_no_process_is_left_behind(task: Callable[[str], str], tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    name = task(f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    with pytest.raises(InvalidInput):
        outcome(name, Limits(wall_s=5))
    if pid_file.exists():  # a machine so busy that the child had not begun has nothing to leave either
        assert not _runs(int(pid_file.read_text()))


def said(check: Callable[[], dict[str, Any]]) -> object:
    """A check's report, or field, value and message of its refusal."""
    try:
        return check()
    except InvalidInput as error:
        return error.field, error.value, error.message


def model_said(path: Path) -> object:
    return said(lambda: check_model(path, "model.onnx", {}, LIMITS))


def data_said(path: Path) -> object:
    return said(lambda: check_dataset(path, "0" * 64, None, None, LIMITS))


@pytest.mark.parametrize(
    ("content", "checked"),
    [
        (classifier(), model_said),
        (classifier(odd_op="Bernoulli"), model_said),
        (digits_npz(), data_said),
        (digits_npz()[:5000], data_said),
    ],
    ids=["network", "random network", "data", "cut data"],
)
def test_checks_in_the_process_of_a_test_answer_as_the_child_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, checked: Callable[[Path], object]
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content)
    by_child = checked(path)
    monkeypatch.setattr(sandbox, "_child", child_here)
    assert checked(path) == by_child
