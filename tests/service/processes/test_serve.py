"""serve: one command brings everything up, and nothing of it outlives the command."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from job_worlds import until
from patience import PATIENCE_S
from sqlalchemy.exc import OperationalError

from service.errors import InvalidInput, Unavailable
from service.files import data_folder
from service.processes.agent_child import agent_child
from service.processes.serve import check_host, listen, serve, show_sign_in, until_done
from service.settings import Settings
from service.store import Store, make_engine, tokens

PROGRAM = """
import sys
from pathlib import Path
from service.processes.serve import serve
from service.settings import Settings
settings = Settings(data_dir=Path(sys.argv[1]), port=0)
sys.exit(serve(settings, agent=False, ready=lambda url: print(url, flush=True)))
"""


class Served:
    """A running `serve` in a process of its own, with its output in a pipe."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        root = Path(__file__).parents[3]
        command = [sys.executable, "-c", PROGRAM, str(data_dir)]
        self.process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/readyz", timeout=PATIENCE_S).json()
        return found

    def conductor(self) -> int:
        """The process id of the newest conductor: its id in the store has it."""
        from sqlalchemy import text

        until(lambda: self.ready()["conductors"] >= 1)
        engine = make_engine(f"sqlite:///{self.data_dir / 'netlathe.db'}")
        with engine.connect() as connection:
            newest = connection.scalar(text("SELECT id FROM conductors ORDER BY started_at DESC"))
        engine.dispose()
        return int(str(newest).split("-")[-2])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path / "data")
    yield found
    found.process.kill()
    found.process.communicate()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_answers_signs_in_and_ends_with_its_children(served: Served) -> None:
    assert served.ready()["store"] == "ok"
    token_file = served.data_dir / "user-token"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(served.data_dir.stat().st_mode) == 0o700
    headers = {"Authorization": f"Bearer {token_file.read_text().strip()}"}
    assert httpx.get(f"{served.url}/api/v1/jobs", headers=headers).json()["total"] == 0
    conductor = served.conductor()
    with httpx.stream("GET", f"{served.url}/api/v1/events", headers=headers, timeout=PATIENCE_S) as stream:
        assert stream.status_code == 200
        served.process.send_signal(signal.SIGTERM)
        for _ in stream.iter_bytes():  # to its end: a stream that was broken off would raise
            pass
        out, err = served.process.communicate(timeout=PATIENCE_S)
    assert served.process.returncode == 0, err
    assert "Traceback" not in err
    assert not alive(conductor)
    assert "nl_" not in out + err, "the link to sign in is for a terminal only"


def test_after_kill_9_its_children_end_by_themselves(served: Served) -> None:
    conductor = served.conductor()
    served.process.kill()
    served.process.wait()
    until(lambda: not alive(conductor))


def test_a_conductor_that_dies_is_started_again(served: Served) -> None:
    first = served.conductor()
    os.kill(first, signal.SIGKILL)
    until(lambda: served.conductor() != first)


def test_a_second_one_on_the_same_folder_comes_up_with_the_same_token(served: Served) -> None:
    before = (served.data_dir / "user-token").read_text()
    served.process.terminate()
    served.process.communicate(timeout=PATIENCE_S)
    again = Served(served.data_dir)
    assert again.ready()["store"] == "ok"
    assert (served.data_dir / "user-token").read_text() == before
    again.process.terminate()
    again.process.communicate(timeout=PATIENCE_S)


def test_a_second_one_beside_the_first_is_refused_and_names_it(served: Served) -> None:
    second = Settings(data_dir=served.data_dir, port=0)
    with pytest.raises(Unavailable) as refused:
        serve(second, agent=False)
    holder = f"process {served.process.pid} ({served.url})"
    assert str(refused.value) == f"the data folder {served.data_dir} is in use by {holder}"
    assert served.ready()["store"] == "ok"


def test_api_servers_on_postgresql_share_a_folder_and_agents_do_not(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url="postgresql://owner@127.0.0.1:1/netlathe")
    with data_folder.held(tmp_path):
        with pytest.raises(Unavailable, match="cannot be used"):  # it got as far as the database
            serve(settings, conductor=False, agent=False)
        with pytest.raises(Unavailable, match=f"in use by process {os.getpid()}"):
            serve(settings, conductor=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "lathe.example"])
def test_off_loopback_it_wants_tls_or_to_be_told(host: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, host=host)
    with pytest.raises(InvalidInput, match="--insecure"):
        check_host(settings)
    check_host(settings.model_copy(update={"insecure": True}))
    check_host(settings.model_copy(update={"tls_cert": Path("cert"), "tls_key": Path("key")}))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.53"])
def test_loopback_needs_nothing(host: str, tmp_path: Path) -> None:
    check_host(Settings(data_dir=tmp_path, host=host))


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match="cannot listen") as refused:
            serve(Settings(data_dir=tmp_path / "other", port=port))
    assert refused.value.value == port


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_headers(host: str, tmp_path: Path) -> None:
    with listen(Settings(data_dir=tmp_path, host=host, port=0)) as listening:
        with socket.create_connection(listening.getsockname()[:2]):
            connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_database_that_is_not_migrated_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.processes.serve.is_newest", lambda engine: False)
    monkeypatch.setattr(
        "service.processes.serve.make_engine", lambda url: make_engine(f"sqlite:///{tmp_path / 'x.db'}")
    )
    settings = Settings(data_dir=tmp_path, database_url="postgresql://nobody@127.0.0.1/nothing")
    with pytest.raises(Unavailable, match="netlathe migrate"):
        serve(settings)


def test_half_of_tls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be set together"):
        Settings(data_dir=tmp_path, tls_cert=Path("cert"))


def test_a_damaged_database_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "netlathe.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(Unavailable, match=r"netlathe\.db.*restore it from a backup"):
        serve(Settings(data_dir=tmp_path, port=0))


def test_a_password_is_in_no_message(tmp_path: Path) -> None:
    url = "postgresql://owner:hidden@127.0.0.1:1/netlathe"
    settings = Settings(data_dir=tmp_path, database_url=url)
    with pytest.raises(Unavailable, match="cannot be used") as refused:
        serve(settings)
    assert "hidden" not in str(refused.value)
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_link_to_sign_in_is_shown_to_a_terminal_only(
    store: Store,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    show_sign_in(store, settings, "http://127.0.0.1:8000")
    out = capsys.readouterr().out
    assert out.startswith("Sign in once: http://127.0.0.1:8000/sign-in#code=nl_c_") if terminal else out == ""


def test_a_locked_database_delays_the_beginning_and_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.processes.serve.AGAIN_S", 0.0)
    tries: list[int] = []

    def step() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OperationalError("BEGIN", None, Exception("database is locked"))

    until_done(step)
    assert len(tries) == 3


def test_the_agent_is_started_once_the_database_answers(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    create = tokens.create

    def locked_at_first(*arguments: Any, **named: Any) -> Any:
        begun.append("try")
        if len(begun) == 1:
            raise OperationalError("BEGIN", None, Exception("database is locked"))
        return create(*arguments, **named)

    monkeypatch.setattr("service.processes.agent_child.tokens.create", locked_at_first)
    monkeypatch.setattr("service.processes.restarting.FIRST_REST_S", 0.01)
    child = agent_child("http://127.0.0.1:1", store, tmp_path / "agent", runtimes=("simulated",))
    child.start()
    try:
        until(lambda: child.pid is not None)
    finally:
        child.end()
    assert len(begun) >= 2
