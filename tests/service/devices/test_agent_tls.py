"""A server with a certificate that nobody knows: what the agent and the client say, and what they are to be told."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_calls import enrolment_token
from live_server import serving, until
from patience import PATIENCE_S

from hw_profiles.agent.agent import Agent, print_unit
from hw_profiles.agent.tls import trusting
from hw_profiles.host_lock import LOCK_DIR_VARIABLE, HostLock
from netlathe import Client, Untrusted
from service.processes.agent_child import agent_child
from service.settings import Settings
from service.store import Store
from service.store.devices import devices


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for a name, its key beside it."""
    made = folder / f"{name}.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*command, "-keyout", made.with_suffix(".key"), "-out", made], check=True, capture_output=True)
    return made


@pytest.fixture
def cert(tmp_path: Path) -> Path:
    return certificate(tmp_path, "netlathe.test")


@pytest.fixture
def url(settings: Settings, store: Store, cert: Path) -> Iterator[str]:
    with serving(settings.model_copy(update={"tls_cert": cert, "tls_key": cert.with_suffix(".key")}), store) as found:
        yield found


def agent_of(url: str, store: Store, folder: Path, ca: Path | None) -> Agent:
    return Agent(
        url,
        machine="bench",
        runtimes=["simulated"],
        enrolment_token=enrolment_token(store),
        state_dir=folder,
        lock=HostLock(folder),
        ca=ca,
    )


def enrolled(store: Store) -> bool:
    with store.read() as tx:
        return devices.find(tx, "bench-simulated-t1-fp32") is not None


@pytest.mark.parametrize("other", [False, True])
def test_an_unknown_certificate_ends_a_new_agent_with_a_line(
    other: bool, url: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = certificate(tmp_path, "other.test") if other else None
    assert agent_of(url, store, tmp_path, ca).run() == 3
    said = capsys.readouterr().err
    assert said.startswith("netlathe agent: ")
    assert said.count("\n") == 1
    assert f"the certificate of {url} is not trusted here (self-signed certificate)" in said
    assert "--ca FILE or SSL_CERT_FILE" in said


def test_an_agent_that_is_given_the_certificate_enrols(url: str, store: Store, cert: Path, tmp_path: Path) -> None:
    agent = agent_of(url, store, tmp_path, cert)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(agent.run()))
    thread.start()
    try:
        until(lambda: enrolled(store), "the agent to enrol")
    finally:
        agent.drain()
        thread.join(PATIENCE_S)
    assert codes == [0]


def test_the_servers_own_agent_knows_its_certificate(
    url: str, store: Store, cert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(tmp_path))
    child = agent_child(url, store, tmp_path / "agent", machine="bench", runtimes=("simulated",), ca=cert)
    child.start()
    try:
        until(lambda: enrolled(store), "the agent to enrol")
    finally:
        child.end()


def test_a_name_other_than_loopback_is_held_to_the_certificate(cert: Path) -> None:
    held, tunnel = trusting(cert, "https://netlathe.example"), trusting(cert, "https://127.0.0.1:8000")
    assert isinstance(held, ssl.SSLContext)
    assert isinstance(tunnel, ssl.SSLContext)
    assert held.check_hostname
    assert not tunnel.check_hostname
    assert {held.verify_mode, tunnel.verify_mode} == {ssl.CERT_REQUIRED}


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), ("not a certificate", "no certificate")])
def test_a_file_without_a_certificate_is_named(
    content: str | None, why: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content)
    assert agent_of("https://127.0.0.1:1", store, tmp_path, ca).run() == 2
    said = capsys.readouterr().err
    assert f"ca: {'cannot be read: ' if content is None else 'this file holds '}{why}" in said
    assert str(ca) in said


def test_the_unit_names_the_certificate() -> None:
    assert '--machine "pi5" --ca "/etc/netlathe/ca.pem"\n' in print_unit(
        "https://x", "pi5", Path("/etc/netlathe/ca.pem")
    )


def test_the_client_says_so_at_once_and_takes_ssl_cert_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Client(url, "nl_u_x", sleep=lambda _: pytest.fail("it tries again")) as client,
        pytest.raises(Untrusted, match=r"not trusted here \(self-signed certificate\).*SSL_CERT_FILE"),
    ):
        client.ready()
    known = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(known))
    with Client(url, "nl_u_x", retries=0) as client, pytest.raises(Untrusted):
        client.ready()  # another certificate than this server's
