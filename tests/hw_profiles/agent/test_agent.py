"""The agent without a server: what it says when it cannot work, what it keeps, what it needs to be imported."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path

import httpx
import pytest

from hw_profiles.agent.__main__ import main
from hw_profiles.agent.agent import Agent, print_unit
from hw_profiles.agent.connection import Connection, LeaseLost, NotAccepted, Refused, ServerAway, UpgradeNeeded, persist
from hw_profiles.agent.credentials import Credentials, CredentialStore
from hw_profiles.errors import InvalidInput
from hw_profiles.host_lock import HostLock
from hw_profiles.machine import fingerprint, machine_name
from hw_profiles.wire.enrolment import Enrolment, RuntimeOffer, RuntimeSettings, SelfTest

# What a machine that only runs an agent need not have.
HEAVY = (
    "torch fastapi starlette pydantic sqlalchemy alembic sklearn scipy ray optuna pyarrow PIL jinja2 plotly uvicorn"
    " onnxruntime onnxscript service workers compress platformdirs typer rich"
)

LIGHT_IMPORT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        of_search = name.startswith("search.") and name != "search.discovery"
        if name.split(".")[0] in sys.argv[1].split() or of_search:
            raise ImportError(f"{name} is not installed on an agent's machine")
sys.meta_path.insert(0, Refuse())
import hw_profiles.agent.agent, hw_profiles.agent.__main__, hw_profiles.timing.child
print("imported")
"""


def _agent(folder: Path, handler: httpx.MockTransport, token: str | None = "nl_e_once") -> Agent:
    return Agent(
        "http://server",
        machine="bench",
        runtimes=["simulated"],
        enrolment_token=token,
        state_dir=folder,
        lock=HostLock(folder),
        transport=handler,
    )


def _answers(status: int, body: object) -> httpx.MockTransport:
    return httpx.MockTransport(lambda _request: httpx.Response(status, json=body))


def test_the_agent_needs_only_its_own_dependencies() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT_IMPORT, HEAVY], capture_output=True, text=True, check=False)
    assert done.stdout == "imported\n", done.stderr


def test_an_upgrade_is_asked_for_with_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detail = "upgrade the agent with: git pull && pip install '.[agent]'"
    assert _agent(tmp_path, _answers(426, {"detail": detail})).run() == 3
    assert "git pull && pip install '.[agent]'" in capsys.readouterr().err


@pytest.mark.parametrize("status", [401, 403])
def test_a_void_token_ends_the_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int) -> None:
    assert _agent(tmp_path, _answers(status, {"detail": "unknown"})).run() == 3
    assert "new enrolment token" in capsys.readouterr().err


def test_another_machine_of_the_same_name_ends_the_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _agent(tmp_path, _answers(409, {"detail": "start this agent with another --machine"})).run() == 3
    assert "--machine" in capsys.readouterr().err


def test_neither_credentials_nor_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _agent(tmp_path, _answers(500, {}), token=None).run() == 2
    assert "enrolment_token" in capsys.readouterr().err


def test_an_unknown_runtime_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = Agent("http://server", machine="bench", runtimes=["abacus"], state_dir=tmp_path, lock=HostLock(tmp_path))
    assert agent.run() == 2
    assert "abacus" in capsys.readouterr().err


def test_the_enrolment_is_what_the_wire_says(tmp_path: Path) -> None:
    seen: list[dict[str, object]] = []

    def server(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content) | {"key": request.headers["Idempotency-Key"]})
        return httpx.Response(426, json={"detail": "enough"})

    _agent(tmp_path, httpx.MockTransport(server)).run()
    body = {name: value for name, value in seen[0].items() if name != "key"}
    assert seen[0]["key"]
    assert body["protocol"] == 1
    assert body["self_test"]["ok"] is True  # type: ignore[index]
    assert body["self_test"]["null_us"]["bench-simulated-t1-fp32"] > 0  # type: ignore[index]
    assert set(body) == {field.name for field in fields(Enrolment)}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, ServerAway),
        (503, ServerAway),
        (429, ServerAway),
        (409, LeaseLost),
        (410, LeaseLost),
        (401, NotAccepted),
        (403, NotAccepted),
        (426, UpgradeNeeded),
        (422, Refused),
        (404, Refused),
    ],
)
def test_each_refusal_has_its_class(status: int, kind: type[Exception]) -> None:
    connection = Connection("http://server", "nl_a_secret", _answers(status, {"detail": "because"}))
    with pytest.raises(kind, match="because"):
        connection.call("GET", "/x")
    connection.close()


def test_calls_are_repeated_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw_profiles.agent.connection.FIRST_PAUSE_S", 0.001)
    left = [httpx.ConnectError("refused"), httpx.ReadTimeout("slow")]

    def server(request: httpx.Request) -> httpx.Response:
        if left:
            raise left.pop()
        return httpx.Response(200, json={"ok": request.headers["Authorization"]})

    connection = Connection("http://server", "nl_a_secret", httpx.MockTransport(server))
    stop = threading.Event()
    assert persist(lambda: connection.call("GET", "/x"), stop).json() == {"ok": "Bearer nl_a_secret"}
    left.append(httpx.ConnectError("refused"))
    stop.set()
    with pytest.raises(ServerAway):
        persist(lambda: connection.call("GET", "/x"), stop)
    connection.close()


def test_credentials_are_private_and_their_token_is_not_shown(tmp_path: Path) -> None:
    store = CredentialStore("http://server/", "bench", tmp_path)
    assert store.load() is None
    saved = Credentials("http://server", "agt_1", "bench", "nl_a_secret")
    store.save(saved)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert CredentialStore("http://server", "bench", tmp_path).load() == saved
    assert "secret" not in repr(saved)
    assert CredentialStore("http://other", "bench", tmp_path).load() is None
    assert CredentialStore("http://server", "other", tmp_path).load() is None
    store.path.write_text("{")
    with pytest.raises(InvalidInput, match="enrol again"):
        store.load()
    store.forget()
    assert store.load() is None


def test_one_agent_for_a_server_and_a_machine(tmp_path: Path) -> None:
    store = CredentialStore("http://server", "bench", tmp_path)
    with store.held(), pytest.raises(InvalidInput, match="another agent"), store.held():
        pass
    with store.held():
        pass


def test_the_unit_restarts_the_agent_but_not_when_that_is_useless(capsys: pytest.CaptureFixture[str]) -> None:
    unit = print_unit("http://server:8000", "pi5")
    assert f'ExecStart="{sys.executable}" -m hw_profiles.agent --url "http://server:8000" --machine "pi5"' in unit
    assert "RestartPreventExitStatus=2 3" in unit
    assert "WantedBy=default.target" in unit
    assert main(["--url", "http://server:8000", "--machine", "pi5", "--print-unit"]) == 0
    assert capsys.readouterr().out == unit


def test_the_machine_has_a_valid_name_and_a_steady_fingerprint() -> None:
    offer = RuntimeOffer("simulated", "1", RuntimeSettings(1))
    Enrolment(1, "agent", machine_name(), (offer,), SelfTest(ok=True), fingerprint())
    assert fingerprint() == fingerprint()
