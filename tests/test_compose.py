"""docker-compose.yml and Dockerfile: what they promise, read from the files themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli import run

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
RAY = [name for name in OURS if SERVICES[name].get("entrypoint") == ["ray"]]


def test_the_parts_are_there() -> None:
    assert set(SERVICES) == {"postgres", "migrate", "api", "conductor", "ray-head", "ray-worker", "agent"}
    assert set(OURS) == set(SERVICES) - {"postgres"}


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8000:8000"]
    assert not [name for name, service in SERVICES.items() if service.get("network_mode") == "host"]


def test_only_the_api_leaves_the_internal_network() -> None:
    assert COMPOSE["networks"]["backend"]["internal"] is True
    for name, service in SERVICES.items():
        assert set(service["networks"]) == ({"backend", "published"} if name == "api" else {"backend"})


def test_secrets_are_files_and_never_values() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"nl_[uae]_|postgres(ql)?://\S+:\S+@", text)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|DATABASE_URL|SECRET", name):
                assert name.endswith(("_FILE", "_PATH")), name
                assert value.removeprefix("/run/secrets/") in service["secrets"]
    for secret in COMPOSE["secrets"].values():
        assert set(secret) == {"file"}
        assert secret["file"].startswith("./secrets/")
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_what_is_named_is_declared() -> None:
    for service in SERVICES.values():
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        assert set(service["networks"]) <= set(COMPOSE["networks"])
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])


def test_those_that_share_work_share_the_data_volume() -> None:
    for name in ("migrate", "api", "conductor"):
        assert "data:/data" in SERVICES[name]["volumes"]
        assert SERVICES[name]["environment"]["NETLATHE_DATA_DIR"] == "/data"


def test_timing_and_computing_share_a_lock() -> None:
    from hw_profiles.host_lock import LOCK_DIR_VARIABLE

    for name in ("conductor", "agent", *RAY):
        assert "lock:/lock" in SERVICES[name]["volumes"]
        assert SERVICES[name]["environment"][LOCK_DIR_VARIABLE] == "/lock"


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *arguments = SERVICES[name]["command"]
    if name in RAY:
        command = [sys.executable, "-m", "ray.scripts.scripts", verb, "--help"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        assert run([verb, "--help"]) == 0
        said = capsys.readouterr().out
    known = re.findall(r"--[a-z][a-z-]*", said)
    options = [option.split("=")[0] for option in arguments if option.startswith("--")]
    assert [option for option in options if option not in known] == []


def test_ray_wants_its_token_and_knows_no_database() -> None:
    assert RAY == ["ray-head", "ray-worker"]
    for name in (*RAY, "conductor"):
        assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert "ray_token" in SERVICES[name]["secrets"]
    for name in RAY:
        assert SERVICES[name]["secrets"] == ["ray_token"]
        assert not [key for key in SERVICES[name]["environment"] if "DATABASE" in key]
        assert "data:/data" in SERVICES[name]["volumes"]
    assert SERVICES["conductor"]["command"][-1] == "ray-head:6379"


def test_images_are_pinned() -> None:
    for service in SERVICES.values():
        assert re.fullmatch(r"[a-z]+:\d+(\.\d+)+", service["image"]), service["image"]


def test_the_version_is_the_projects() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {SERVICES[name]["image"] for name in OURS} == {f"netlathe:{version}"}


def test_the_image_holds_what_was_tested_and_runs_as_nobody_special() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert any("-c constraints.txt '.[server]'" in line for line in lines)
    assert [line for line in lines if line.startswith("USER ")] == ["USER netlathe"]
    assert not [line for line in lines if line.startswith("ADD ")]
    copied = {line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line}
    packages = {"service", "workers", "search", "hw_profiles", "compress", "netlathe"}
    assert packages <= copied
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    assert packages | {"pyproject.toml", "constraints.txt"} <= kept


def test_secrets_come_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.verbs.serving import _secret, _settings

    file = tmp_path / "database-url"
    file.write_text("postgresql://u:p@postgres/netlathe\n")
    monkeypatch.setenv("NETLATHE_DATABASE_URL_FILE", str(file))
    monkeypatch.delenv("NETLATHE_DATABASE_URL", raising=False)
    settings = _settings(data_dir=tmp_path)
    assert settings.url == "postgresql+psycopg://u:p@postgres/netlathe"
    assert "u:p" not in repr(settings)
    monkeypatch.setenv("NETLATHE_DATABASE_URL", "postgresql://direct/x")
    assert _secret("NETLATHE_DATABASE_URL") == "postgresql://direct/x"
