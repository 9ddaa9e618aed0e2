"""doctor: findings about the data folder, the server and the ports open to the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.doctor import _open_ports, examine

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def _proc(folder: Path, *lines: str, six: tuple[str, ...] = ()) -> Path:
    (folder / "tcp").write_text(HEADER + "".join(line + "\n" for line in lines))
    (folder / "tcp6").write_text(HEADER + "".join(line + "\n" for line in six))
    return folder


def _socket(address: str, port: int, state: str = "0A", uid: int | None = None) -> str:
    owner = os.getuid() if uid is None else uid
    return f"   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {owner:5d} 0 1"


def test_only_open_listening_sockets_of_this_user_are_named(tmp_path: Path) -> None:
    proc = _proc(
        tmp_path,
        _socket("00000000", 6379),
        _socket("0100007F", 8000),
        _socket("0A00A8C0", 8265),
        _socket("00000000", 9, state="01"),
        _socket("00000000", 22, uid=os.getuid() + 1),
        six=(
            _socket("0" * 32, 10001),
            _socket("00000000000000000000000001000000", 8001),
            _socket("0000000000000000FFFF00000100007F", 8002),
        ),
    )
    (finding,) = _open_ports(proc)
    assert finding.state == "note"
    assert finding.detail == "listening beyond loopback: 6379, 8265, 10001"


def test_nothing_open(tmp_path: Path) -> None:
    (finding,) = _open_ports(_proc(tmp_path, _socket("0100007F", 8000)))
    assert finding.state == "ok"


def test_a_token_that_others_can_read_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLATHE_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    token = tmp_path / "user-token"
    token.write_text("nl_u_x")
    token.chmod(0o644)
    found = {finding.name: finding for finding in examine(tmp_path)}
    assert found["user token"].state == "wrong"
    assert "0644" in found["user token"].detail
    assert found["server"].state == "note"
    token.chmod(0o600)
    assert {finding.name: finding for finding in examine(tmp_path)}["user token"].state == "ok"
    assert all("nl_u_x" not in finding.detail for finding in found.values())


AWAY = "http://server.invalid:8000"


@pytest.mark.parametrize(
    ("url", "environment", "state", "says"),
    [
        ("http://127.0.0.1:9", {"http_proxy": "http://p:1", "NETLATHE_PROXY": "http://p:1"}, "ok", "none to"),
        (AWAY, {}, "ok", "none to"),
        (AWAY, {"http_proxy": "http://p:1"}, "note", "http_proxy would be used with NETLATHE_PROXY=environment"),
        (AWAY, {"NETLATHE_PROXY": "http://me:secret@127.0.0.1:9"}, "ok", "http://127.0.0.1:9 (NETLATHE_PROXY)"),
        (AWAY, {"NETLATHE_PROXY": "environment"}, "ok", "NETLATHE_PROXY is environment"),
        (AWAY, {"NETLATHE_PROXY": "ftp://me:secret@p"}, "wrong", "is not the address of a proxy"),
    ],
)
def test_the_proxy_is_told_without_its_password(
    url: str, environment: dict[str, str], state: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in {"NETLATHE_URL": url, **environment}.items():
        monkeypatch.setenv(name, value)
    (found,) = (finding for finding in examine(tmp_path) if finding.name == "proxy")
    assert found.state == state
    assert says in found.detail
    assert "secret" not in found.detail
